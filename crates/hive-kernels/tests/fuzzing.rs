//! A short run of the kernels' fuzz target: mismatched shapes are errors.

#[path = "../../../fuzz/src/kernels.rs"]
mod kernels;
#[path = "../../../fuzz/src/mutate.rs"]
mod mutate;

#[test]
fn shapes_that_do_not_fit_are_errors() {
    for misfit in kernels::misfits() {
        assert!(!kernels::run(&misfit), "{misfit:?}");
    }
    mutate::short_run(&kernels::seeds(), 5000, kernels::run);
}
