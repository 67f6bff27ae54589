//! What a worker says to its node, and what a node orders of it.

/// Reads a message in either direction. Whether it is one.
pub fn run(data: &[u8]) -> bool {
    hive_node::fuzzing::worker(data)
}

/// Some messages of each direction.
pub fn seeds() -> Vec<Vec<u8>> {
    hive_node::fuzzing::worker_seeds()
}
