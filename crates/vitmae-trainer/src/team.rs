//! The processes that train or judge one model together.
//!
//! Each holds the whole model and computes a part of every update's images, or of a set's. A [`Collective`] is how they talk; a [`Team`]
//! is what a run sees of it, and one process alone is a team too, for which nothing here does anything.
//!
//! Every process calls the same functions in the same order; that is the whole protocol.

use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::Receiver;

use serde::Serialize;
use serde::de::DeserializeOwned;
use vitmae_layers::Param;

use crate::TrainerError;

/// What processes need of each other. Calls are answered in the order they are made, and none of them waits; a channel
/// that closes without an answer says that the others cannot be reached any more.
pub trait Collective: Send + Sync {
    /// The number of this process, from 0; 0 leads.
    fn rank(&self) -> usize;

    /// Processes in all.
    fn size(&self) -> usize;

    /// Adds the `values` of all processes, element by element in the order of ranks; all give equally many, and all get the
    /// same bits.
    fn sum(&self, values: Vec<f32>) -> Receiver<Vec<f32>>;

    /// The `bytes` of every process, by rank; they may differ in length.
    fn gather(&self, bytes: Vec<u8>) -> Receiver<Vec<Vec<u8>>>;
}

/// The processes that work together; by default one.
#[derive(Clone, Default)]
pub struct Team(Option<Arc<dyn Collective>>);

/// A sum on its way.
pub(crate) struct Pending(Receiver<Vec<f32>>);

impl Team {
    /// The processes that `collective` connects.
    pub fn new(collective: Arc<dyn Collective>) -> Team {
        Team(Some(collective))
    }

    /// The number of this process, from 0.
    pub fn rank(&self) -> usize {
        self.0.as_ref().map_or(0, |all| all.rank())
    }

    /// Processes in all, at least 1.
    pub fn size(&self) -> usize {
        self.0.as_ref().map_or(1, |all| all.size())
    }

    /// Whether this is the process that writes files and tells events.
    pub fn leads(&self) -> bool {
        self.rank() == 0
    }

    /// The other processes, if there are any.
    pub(crate) fn others(&self) -> Option<&dyn Collective> {
        self.0.as_deref().filter(|all| all.size() > 1)
    }

    /// The value of every process, by rank.
    pub(crate) fn gather<T: Serialize + DeserializeOwned>(
        &self,
        value: T,
    ) -> Result<Vec<T>, TrainerError> {
        let Some(others) = self.others() else { return Ok(vec![value]) };
        let bytes = serde_json::to_vec(&value).map_err(|_| TrainerError::TeamLost)?;
        let all = others.gather(bytes).recv().map_err(|_| TrainerError::TeamLost)?;
        let values = all.iter().map(|bytes| serde_json::from_slice(bytes));
        values.collect::<Result<_, _>>().map_err(|_| TrainerError::TeamLost)
    }

    /// What the leader makes, at every process.
    pub(crate) fn ask_leader<T: Serialize + DeserializeOwned>(
        &self,
        make: impl FnOnce() -> Result<T, TrainerError>,
    ) -> Result<T, TrainerError> {
        if self.others().is_none() {
            return make();
        }
        let own = if self.leads() { vec![make()?] } else { vec![] };
        self.gather(own)?.into_iter().flatten().next().ok_or(TrainerError::TeamLost)
    }

    /// A reason to stop that every process sees at once, if any has one; waits for all of them.
    pub(crate) fn agree(&self, stop: Option<usize>) -> Result<Option<usize>, TrainerError> {
        Ok(self.gather(stop)?.into_iter().flatten().max())
    }

    /// Checks that what is `found` is the same in all processes; one alone does not look.
    ///
    /// # Errors
    /// [`TrainerError::ProcessesDiffer`], with `what` in its message; [`TrainerError::TeamLost`].
    pub fn same(
        &self,
        what: &'static str,
        found: impl FnOnce() -> Result<String, TrainerError>,
    ) -> Result<(), TrainerError> {
        if self.others().is_none() {
            return Ok(());
        }
        let all = self.gather(found()?)?;
        match all.iter().position(|other| *other != all[0]) {
            Some(rank) => Err(TrainerError::ProcessesDiffer { what, rank }),
            None => Ok(()),
        }
    }

    /// Checks that all processes hold the same weights, to the bit.
    ///
    /// # Errors
    /// As [`same`](Self::same); [`TrainerError::Tensor`] if values cannot be read from the device.
    pub fn same_weights<'a>(
        &self,
        parameters: impl IntoIterator<Item = &'a Param>,
    ) -> Result<(), TrainerError> {
        self.same("weights", || {
            let mut sum = 0;
            for parameter in parameters {
                for value in parameter.value.to_vec()? {
                    sum = crc32c::crc32c_append(sum, &value.to_le_bytes());
                }
            }
            Ok(format!("{sum:08x}"))
        })
    }

    /// Rows of `width` values for 0..count, in order, at every process; `work` makes those of a range of `at_once`, and each range
    /// is made by one process. To be the sum of all, a value of -0 becomes 0.
    ///
    /// # Errors
    /// Those of `work`; [`TrainerError::TeamLost`].
    pub fn rows<E: From<TrainerError>>(
        &self,
        (count, width): (usize, usize),
        at_once: usize,
        mut work: impl FnMut(Range<usize>) -> Result<Vec<f32>, E>,
    ) -> Result<Vec<f32>, E> {
        let mut all = vec![0.0; count * width];
        let at_once = at_once.max(1);
        for first in (0..count).step_by(at_once).skip(self.rank()).step_by(self.size()) {
            let items = first..(first + at_once).min(count);
            all[items.start * width..items.end * width].copy_from_slice(&work(items)?);
        }
        let Some(others) = self.others() else { return Ok(all) };
        Ok(Pending::start(others, all).wait(count * width)?)
    }

    /// Results of `work` on 0..count, in order, at every process; each item is done by one process.
    pub(crate) fn spread<T: Serialize + DeserializeOwned>(
        &self,
        count: usize,
        work: impl FnMut(usize) -> Result<T, TrainerError>,
    ) -> Result<Vec<T>, TrainerError> {
        let own = (self.rank()..count).step_by(self.size()).map(work);
        let all = self.gather(own.collect::<Result<Vec<T>, _>>()?)?;
        let mut all: Vec<_> = all.into_iter().map(Vec::into_iter).collect();
        let processes = all.len();
        let results = (0..count).map(|item| all[item % processes].next());
        results.collect::<Option<_>>().ok_or(TrainerError::TeamLost)
    }
}

impl Pending {
    /// Starts a sum of `values` over `all`.
    pub(crate) fn start(all: &dyn Collective, values: Vec<f32>) -> Pending {
        Pending(all.sum(values))
    }

    /// Waits for the sum of `count` values.
    pub(crate) fn wait(self, count: usize) -> Result<Vec<f32>, TrainerError> {
        let sum = self.0.recv().ok().filter(|sum| sum.len() == count);
        sum.ok_or(TrainerError::TeamLost)
    }
}

impl PartialEq for Team {
    fn eq(&self, other: &Team) -> bool {
        (self.rank(), self.size()) == (other.rank(), other.size())
    }
}

impl std::fmt::Debug for Team {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "process {} of {}", self.rank(), self.size())
    }
}
