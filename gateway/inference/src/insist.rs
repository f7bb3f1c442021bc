//! Work that is done to its end, whether or not anybody waits for it.
//!
//! Whoever waits does the work in its own task, which costs no switch between tasks and no thread that is woken. Where it
//! is dropped before its end, with the call that its client has left, a task of its own goes on with it.

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::runtime::Handle;

/// A future that is finished by a task of its own if nobody else does.
pub(crate) struct Insist<T: Send + 'static> {
    work: Option<Pin<Box<dyn Future<Output = T> + Send>>>,
    runtime: Handle,
}

impl<T: Send + 'static> Insist<T> {
    /// Call it in a runtime.
    pub(crate) fn on(work: impl Future<Output = T> + Send + 'static) -> Self {
        Self::at(Handle::current(), work)
    }

    pub(crate) fn at(runtime: Handle, work: impl Future<Output = T> + Send + 'static) -> Self {
        Self { work: Some(Box::pin(work)), runtime }
    }
}

impl<T: Send + 'static> Future for Insist<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        // Like any other, it must not be polled after its end.
        let mut work = self.work.take().expect("work that has not ended");
        let done = work.as_mut().poll(cx);
        if done.is_pending() {
            self.work = Some(work);
        }
        done
    }
}

impl<T: Send + 'static> Drop for Insist<T> {
    fn drop(&mut self) {
        if let Some(work) = self.work.take() {
            drop(self.runtime.spawn(async move { drop(work.await) }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::oneshot;

    #[tokio::test]
    async fn work_is_done_by_whoever_waits_or_else_by_a_task_of_its_own() {
        assert_eq!(Insist::on(async { 7 }).await, 7);
        let (go, gone) = oneshot::channel::<()>();
        let (tell, told) = oneshot::channel();
        let mut begun = Insist::on(async move {
            let _ = gone.await;
            let _ = tell.send(());
        });
        assert!(std::future::poll_fn(|cx| Poll::Ready(Pin::new(&mut begun).poll(cx))).await.is_pending());
        drop(begun);
        go.send(()).expect("a task waits for it");
        told.await.expect("it was done");
    }
}
