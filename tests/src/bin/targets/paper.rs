//! A device that exists on paper: a launch compiles its kernel and runs nothing.

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

use cubecl::bytes::Bytes;
use cubecl::client::Client;
use cubecl::prelude::*;
use cubecl::server::{
    BufferBinding, CopyDescriptor, IoError, KernelArguments, ProfileError, ProfilingToken, Server,
    ServerCommunication, ServerError, ServerStorage, ServerUtilities,
};
use cubecl_common::device::{DeviceId, DeviceService, ServerUtilitiesHandle, ServiceId};
use cubecl_common::profile::ProfileDuration;
use cubecl_environment::future::DynFut;
use cubecl_environment::stream::StreamId;
use cubecl_server::allocator::ContiguousMemoryLayoutPolicy;
use cubecl_server::dry_run::LaunchMode;
use cubecl_server::logging::ServerLogger;
use cubecl_server::memory_management::{
    ManagedMemoryHandle, MemoryAllocationMode, StreamMemoryReport,
};
use cubecl_server::storage::{ComputeStorage, ManagedResource, StorageHandle, StorageId};

use crate::target::{Built, Target};

/// A kernel and what its compilation gave.
pub(crate) struct Compiled {
    /// The path of the kernel's type, without generics.
    pub(crate) kernel: String,
    /// The operation that launched it.
    pub(crate) call: &'static str,
    /// The type of its activations.
    pub(crate) dtype: String,
    /// The target's name.
    pub(crate) target: &'static str,
    /// Number among the kernels of its target, for the name of its file.
    pub(crate) number: usize,
    /// What the compiler gave, or what went wrong.
    pub(crate) result: Result<Built, String>,
}

/// What a device has compiled so far, and for whom.
#[derive(Default)]
pub(crate) struct Book {
    pub(crate) call: &'static str,
    pub(crate) dtype: String,
    pub(crate) compiled: Vec<Compiled>,
    seen: HashSet<String>,
}

/// The server behind a client of such a device.
pub(crate) struct Paper {
    target: Target,
    utilities: Arc<ServerUtilities>,
    book: Arc<Mutex<Book>>,
}

/// A client of a new device, and its book.
pub(crate) fn device(target: Target) -> (Client, Arc<Mutex<Book>>) {
    let id = DeviceId::new(0, target.index());
    let (properties, target_properties) = target.properties();
    let alignment = properties.memory.alignment as usize;
    let (utilities, _) = ServerUtilities::init(
        ServiceId::of::<Paper>(id),
        target.name(),
        properties,
        target_properties,
        Arc::new(ServerLogger::default()),
        ContiguousMemoryLayoutPolicy::new(alignment),
    );
    let book = Arc::new(Mutex::new(Book::default()));
    let paper = Paper { target, utilities: Arc::new(utilities), book: book.clone() };
    (Client::init(id, paper), book)
}

impl Paper {
    fn compile(&self, kernel: &dyn CubeKernel, arguments: &KernelArguments) {
        let mut book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
        if !book.seen.insert(format!("{:?}", kernel.id())) {
            return;
        }
        let compiled = catch_unwind(AssertUnwindSafe(|| self.target.compile(kernel)));
        let mut result = compiled.unwrap_or_else(|panic| Err(message(panic.as_ref())));
        let (buffers, most) = (arguments.resources.len(), self.target.max_bindings());
        if buffers > most as usize {
            result = Err(format!("{buffers} buffers, the device binds at most {most}"));
        }
        let (call, dtype) = (book.call, book.dtype.clone());
        let name = kernel.name().split('<').next().unwrap_or_default().to_owned();
        let target = self.target.name();
        let number = book.compiled.len();
        book.compiled.push(Compiled { kernel: name, call, dtype, target, number, result });
    }
}

/// What a panic said.
pub(crate) fn message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    format!("panicked: {}", text.unwrap_or_default())
}

impl std::fmt::Debug for Paper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Paper({})", self.target.name())
    }
}

impl DeviceService for Paper {
    fn init(_: DeviceId) -> Self {
        unreachable!("`device` makes the only ones")
    }

    fn utilities(&self) -> ServerUtilitiesHandle {
        self.utilities.clone() as ServerUtilitiesHandle
    }
}

impl ServerCommunication for Paper {}

impl Server for Paper {
    fn initialize_memory(
        &mut self,
        _: ManagedMemoryHandle,
        _: u64,
        _: StreamId,
    ) -> Result<(), ServerError> {
        Ok(())
    }

    fn logger(&self) -> Arc<ServerLogger> {
        self.utilities.logger.clone()
    }

    fn utilities(&self) -> Arc<ServerUtilities> {
        self.utilities.clone()
    }

    fn read(
        &mut self,
        descriptors: Vec<CopyDescriptor>,
        _: StreamId,
    ) -> DynFut<Result<Vec<Bytes>, ServerError>> {
        let zeros = |descriptor: CopyDescriptor| {
            let len = descriptor.shape.iter().product::<usize>() * descriptor.elem_size;
            Bytes::from_bytes_vec(vec![0; len])
        };
        let bytes = descriptors.into_iter().map(zeros).collect();
        Box::pin(async move { Ok(bytes) })
    }

    fn write(&mut self, _: Vec<(CopyDescriptor, Bytes)>, _: StreamId) {}

    fn sync(&mut self, _: Vec<BufferBinding>, _: StreamId) -> DynFut<Result<(), ServerError>> {
        Box::pin(async { Ok(()) })
    }

    fn check(&mut self, _: Vec<BufferBinding>, _: StreamId) -> Result<(), ServerError> {
        Ok(())
    }

    unsafe fn launch(
        &mut self,
        kernel: Box<dyn CubeKernel>,
        _: CubeCount,
        arguments: KernelArguments,
        _: StreamId,
        _: LaunchMode,
    ) {
        self.compile(kernel.as_ref(), &arguments);
    }

    fn flush(&mut self, _: StreamId) -> Result<(), ServerError> {
        Ok(())
    }

    fn memory_report(&mut self, _: StreamId) -> Option<StreamMemoryReport> {
        None
    }

    fn memory_cleanup(&mut self, _: StreamId) -> Result<(), ServerError> {
        Ok(())
    }

    fn start_profile(&mut self, _: StreamId) -> Result<ProfilingToken, ServerError> {
        Err(ServerError::graph_state("nothing runs on paper"))
    }

    fn end_profile(
        &mut self,
        _: StreamId,
        _: ProfilingToken,
    ) -> Result<ProfileDuration, ProfileError> {
        unreachable!("no profile was started")
    }

    fn allocation_mode(&mut self, _: MemoryAllocationMode, _: StreamId) {}
}

impl ServerStorage for Paper {
    type Storage = NoMemory;

    fn get_resource(
        &mut self,
        _: BufferBinding,
        _: StreamId,
    ) -> Result<ManagedResource<()>, ServerError> {
        Err(ServerError::graph_state("there is no memory on paper"))
    }
}

/// The memory of a paper device.
pub(crate) struct NoMemory;

impl ComputeStorage for NoMemory {
    type Resource = ();

    fn alignment(&self) -> usize {
        256
    }

    fn get(&mut self, _: &StorageHandle) -> Result<(), IoError> {
        Ok(())
    }

    fn alloc(&mut self, size: u64) -> Result<StorageHandle, IoError> {
        unreachable!("{size} bytes on paper")
    }

    fn dealloc(&mut self, _: StorageId) {}

    fn flush(&mut self) {}

    fn bytes_allocated(&self) -> u64 {
        0
    }
}
