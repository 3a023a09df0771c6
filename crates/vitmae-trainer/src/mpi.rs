//! A [`Collective`] over MPI, through the memory of the host.
//!
//! One thread of each process makes every call to MPI, in the order in which the others ask it to: so a sum of gradients
//! goes on while the backward pass does, and any MPI of the level `MPI_THREAD_FUNNELED` will do.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use mpi::collective::CommunicatorCollectives;
use mpi::datatype::PartitionMut;
use mpi::topology::{Communicator, SimpleCommunicator};
use mpi::{Count, Threading};

use crate::{Collective, Team, TrainerError};

/// Values that are summed at once; it bounds the memory and decides no result.
const PIECE: usize = 1 << 22;
/// How long an abort may take before the process ends by itself.
const ABORT: Duration = Duration::from_secs(10);

/// This process among those that an MPI launcher started. Dropping the last handle takes leave of the others, and waits for them.
pub struct MpiProcesses {
    rank: usize,
    size: usize,
    jobs: Sender<Job>,
    thread: Option<JoinHandle<()>>,
}

enum Job {
    Sum(Vec<f32>, Sender<Vec<f32>>),
    Gather(Vec<u8>, Sender<Vec<Vec<u8>>>),
    Abort(i32),
    Leave,
}

impl MpiProcesses {
    /// Starts MPI; once in a process.
    ///
    /// # Errors
    /// [`TrainerError::Thread`]; [`TrainerError::Mpi`] if it is running already or allows no threads.
    pub fn start() -> Result<Arc<MpiProcesses>, TrainerError> {
        let (jobs, queue) = channel();
        let (ready, started) = channel();
        let work = move || {
            let Some((universe, threading)) = mpi::initialize_with_threading(Threading::Funneled)
            else {
                let _ = ready.send(Err(TrainerError::Mpi { found: "is running already" }));
                return;
            };
            let world = universe.world();
            let allowed = threading >= Threading::Funneled;
            let place = (world.rank() as usize, world.size() as usize);
            let no_threads = TrainerError::Mpi { found: "allows no threads" };
            let _ = ready.send(if allowed { Ok(place) } else { Err(no_threads) });
            serve(&world, queue);
            // Dropping `universe` here ends MPI, on the thread that began it.
        };
        let thread = std::thread::Builder::new().name("mpi".into()).spawn(work);
        let thread = thread.map_err(|source| TrainerError::Thread { what: "mpi", source })?;
        let (rank, size) = started.recv().map_err(|_| TrainerError::TeamLost)??;
        Ok(Arc::new(MpiProcesses { rank, size, jobs, thread: Some(thread) }))
    }

    /// As what a run needs.
    pub fn team(self: &Arc<Self>) -> Team {
        Team::new(Arc::<Self>::clone(self))
    }

    /// Ends all processes of the job with this exit code.
    pub fn abort(&self, code: i32) -> ! {
        let _ = self.jobs.send(Job::Abort(code));
        // The thread may be waiting for a process that is gone; the launcher ends the job when this one leaves so.
        std::thread::sleep(ABORT);
        std::process::exit(code)
    }
}

impl Collective for MpiProcesses {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn sum(&self, values: Vec<f32>) -> Receiver<Vec<f32>> {
        let (answer, sum) = channel();
        // If the thread is gone, the answer's channel closes with the job.
        let _ = self.jobs.send(Job::Sum(values, answer));
        sum
    }

    fn gather(&self, bytes: Vec<u8>) -> Receiver<Vec<Vec<u8>>> {
        let (answer, all) = channel();
        let _ = self.jobs.send(Job::Gather(bytes, answer));
        all
    }
}

impl Drop for MpiProcesses {
    fn drop(&mut self) {
        // The others wait for a process that panics; taking leave would wait for them.
        if std::thread::panicking() {
            self.abort(101);
        }
        let _ = self.jobs.send(Job::Leave);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(world: &SimpleCommunicator, queue: Receiver<Job>) {
    for job in queue {
        // Nobody listens where a run has failed meanwhile.
        match job {
            Job::Sum(values, answer) => drop(answer.send(sum(world, values))),
            Job::Gather(bytes, answer) => drop(answer.send(gather(world, &bytes))),
            Job::Abort(code) => world.abort(code),
            Job::Leave => return,
        }
    }
}

/// Each process adds one part of the values in the order of ranks, in f64, and all collect the parts: the traffic of a ring,
/// 2 (n − 1) / n of the values, and the same bits at every process and in every run.
fn sum(world: &SimpleCommunicator, mut values: Vec<f32>) -> Vec<f32> {
    let processes = world.size() as usize;
    for piece in values.chunks_mut(PIECE) {
        let part = piece.len().div_ceil(processes);
        let mut whole = piece.to_vec();
        whole.resize(part * processes, 0.0);
        let mut received = vec![0f32; part * processes];
        world.all_to_all_into(&whole[..], &mut received[..]);
        let of_all = |at: usize| received[at..].iter().step_by(part).map(|&value| f64::from(value));
        let own: Vec<f32> = (0..part).map(|at| of_all(at).sum::<f64>() as f32).collect();
        world.all_gather_into(&own[..], &mut whole[..]);
        piece.copy_from_slice(&whole[..piece.len()]);
    }
    values
}

fn gather(world: &SimpleCommunicator, bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut counts: Vec<Count> = vec![0; world.size() as usize];
    world.all_gather_into(&(bytes.len() as Count), &mut counts[..]);
    let starts: Vec<Count> = counts
        .iter()
        .scan(0, |end, count| {
            *end += count;
            Some(*end - count)
        })
        .collect();
    let mut all = vec![0u8; counts.iter().sum::<Count>() as usize];
    let mut places = PartitionMut::new(&mut all[..], &counts[..], &starts[..]);
    world.all_gather_varcount_into(bytes, &mut places);
    let of =
        |(&start, &count): (&Count, &Count)| all[start as usize..(start + count) as usize].to_vec();
    starts.iter().zip(&counts).map(of).collect()
}
