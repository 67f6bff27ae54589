//! A worker's messages to its node, and the node's orders.

/// Reads a message in either direction. Whether it is one.
pub fn run(data: &[u8]) -> bool {
    hive_node::fuzzing::worker(data)
}

/// Some messages of each direction.
pub fn seeds() -> Vec<Vec<u8>> {
    hive_node::fuzzing::worker_seeds()
}
