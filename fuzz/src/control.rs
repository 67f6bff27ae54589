//! Other machines' messages on control and transfer streams.

/// Reads a message as each kind that a machine may send. Whether it is one.
pub fn run(data: &[u8]) -> bool {
    hive_node::fuzzing::control(data)
}

/// A message of each kind.
pub fn seeds() -> Vec<Vec<u8>> {
    hive_node::fuzzing::control_seeds()
}
