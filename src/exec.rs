//! Runs hyper's own tasks on the worker's thread.

/// An executor that spawns onto the current thread's runtime, so that nothing needs to be `Send`.
#[derive(Debug, Clone, Copy)]
pub struct LocalExec;

impl<F> hyper::rt::Executor<F> for LocalExec
where
    F: Future + 'static,
    F::Output: 'static,
{
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}
