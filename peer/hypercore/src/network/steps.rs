//! How many connections take a step at a time: tokio has some 500 threads for work that blocks, and the application needs some of
//! them to read and append.

use std::{future::pending, panic::resume_unwind, sync::Arc};
use tokio::{
    sync::Semaphore,
    task::{JoinHandle, spawn, spawn_blocking},
};

/// More than processors or disks can make use of.
const AT_A_TIME: usize = 64;

/// The places for steps of all connections of a network. Who finds none free waits for one in turn.
#[derive(Clone)]
pub(super) struct Steps(Arc<Semaphore>);

impl Steps {
    /// Lets a step run as soon as there is a place for it.
    pub fn run<T: Send + 'static>(&self, step: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
        let places = self.0.clone();
        match places.clone().try_acquire_owned() {
            Ok(place) => spawn_blocking(move || {
                let _place = place;
                step()
            }),
            Err(_) => spawn(async move {
                let place = places.acquire_owned().await.expect("nobody closes it");
                let step = spawn_blocking(move || {
                    let _place = place;
                    step()
                });
                match step.await {
                    Ok(done) => done,
                    Err(error) if error.is_panic() => resume_unwind(error.into_panic()),
                    // The runtime is being shut down.
                    Err(_) => pending().await,
                }
            }),
        }
    }
}

impl Default for Steps {
    fn default() -> Steps {
        Steps(Arc::new(Semaphore::new(AT_A_TIME)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        sync::{
            Mutex,
            atomic::{AtomicUsize, Ordering},
            mpsc,
        },
        time::Duration,
    };
    use tokio::{runtime::Builder, time::timeout};

    #[test]
    fn steps_that_block_leave_threads_to_others() {
        let runtime = Builder::new_multi_thread().enable_time().max_blocking_threads(AT_A_TIME + 1).build().unwrap();
        let (open, gate) = mpsc::channel::<()>();
        let (gate, count, most) = (Mutex::new(gate), AtomicUsize::new(0), AtomicUsize::new(0));
        let shared = Arc::new((gate, count, most));
        runtime.block_on(async {
            let steps = Steps::default();
            let step = |shared: Arc<(Mutex<mpsc::Receiver<()>>, AtomicUsize, AtomicUsize)>| {
                move || {
                    let (gate, count, most) = &*shared;
                    most.fetch_max(count.fetch_add(1, Ordering::AcqRel) + 1, Ordering::AcqRel);
                    // Until the sender is gone.
                    _ = gate.lock().unwrap().recv();
                    count.fetch_sub(1, Ordering::AcqRel);
                }
            };
            let busy: Vec<_> = (0..3 * AT_A_TIME).map(|_| steps.run(step(shared.clone()))).collect();
            let other = timeout(Duration::from_secs(20), spawn_blocking(|| 7)).await;
            assert_eq!(other.expect("a thread is left").unwrap(), 7);
            drop(open);
            for step in busy {
                step.await.unwrap();
            }
            assert!(shared.2.load(Ordering::Acquire) <= AT_A_TIME);
            let failed = steps.run(|| panic!("a step fails")).await;
            assert!(failed.is_err_and(|error| error.is_panic()));
            assert_eq!(steps.0.available_permits(), AT_A_TIME);
        });
    }
}
