//! NVML, opened at run time.

use std::ops::Range;
use std::thread;
use std::time::Duration;

use nvml_wrapper::bitmasks::event::EventTypes;
use nvml_wrapper::enum_wrappers::device::TemperatureSensor;
use nvml_wrapper::enums::device::UsedGpuMemory;
use nvml_wrapper::enums::event::XidError;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device, Nvml};

use super::users::{Holder, Part};
use super::{GpuSample, Xid};

const MIB: f64 = 1024.0 * 1024.0;

/// `nvmlDeviceGetMigMode`: the GPU is divided.
const DIVIDED: u32 = 1;

/// Milliseconds of one wait for a fault.
const LISTEN: u32 = 1000;

pub(super) fn driver_cuda() -> Option<u32> {
    let version = Nvml::init().ok()?.sys_cuda_driver_version().ok()?;
    // As in 12040.
    u32::try_from(version / 1000 * 10 + version % 1000 / 10).ok()
}

/// The driver's library, opened when it is first needed.
#[derive(Default)]
pub(super) struct Library {
    open: Option<Nvml>,
    worked: bool,
}

impl Library {
    pub(super) fn has_worked(&self) -> bool {
        self.worked
    }

    pub(super) fn close(&mut self) {
        self.open = None;
    }

    /// All GPUs by number; with `by_whom` also who uses them.
    pub(super) fn sample(&mut self, by_whom: bool) -> Result<Vec<Part>, NvmlError> {
        let nvml = match &mut self.open {
            Some(nvml) => nvml,
            closed => closed.insert(Nvml::init()?),
        };
        let mut found = Vec::new();
        let mut failure = None;
        let mut number = 0;
        for index in 0..nvml.device_count()? {
            let parts = match nvml.device_by_index(index) {
                Ok(device) => parts(&device, by_whom),
                Err(error) => vec![Err(error)],
            };
            for part in parts {
                match part {
                    Ok(mut part) => {
                        part.sample.index = number;
                        found.push(part);
                    }
                    Err(error) => failure = Some(error),
                }
                number += 1;
            }
        }
        match failure {
            // One lost GPU does not hide the others.
            Some(error) if found.is_empty() => Err(error),
            _ => {
                self.worked = true;
                Ok(found)
            }
        }
    }
}

/// What a GPU consists of for this container: itself, or those of its slices that are here.
fn parts(device: &Device<'_>, by_whom: bool) -> Vec<Result<Part, NvmlError>> {
    let part = |device: &Device<'_>, sample| {
        let holders = if by_whom { holders(device) } else { None };
        Part { sample, holders }
    };
    match slices(device) {
        None => vec![read(device).map(|sample| part(device, sample))],
        Some(slices) => slices
            .iter()
            .map(|slice| of_slice(device, slice).map(|sample| part(slice, sample)))
            .collect(),
    }
}

/// The slices of a GPU that is divided, as far as they are here.
fn slices<'nvml>(device: &Device<'nvml>) -> Option<Vec<Device<'nvml>>> {
    let divided = device.mig_mode().is_ok_and(|mode| mode.current == DIVIDED);
    divided.then(|| {
        let most = device.mig_device_count().unwrap_or(0);
        let slices = (0..most).filter_map(|index| device.mig_device_by_index(index).ok());
        slices.collect()
    })
}

/// The numbers under which each of the driver's GPUs counts here: one, or those of its slices.
fn numbers(nvml: &Nvml) -> Result<Vec<Range<u32>>, NvmlError> {
    let mut numbers = Vec::new();
    let mut next = 0;
    for index in 0..nvml.device_count()? {
        let device = nvml.device_by_index(index).ok();
        let divided = device.as_ref().and_then(slices);
        let parts = divided.map_or(1, |slices| u32::try_from(slices.len()).unwrap_or(0));
        numbers.push(next..next + parts);
        next += parts;
    }
    Ok(numbers)
}

/// The processes on a GPU, each once; nothing where the driver does not say.
fn holders(device: &Device<'_>) -> Option<Vec<Holder>> {
    let mut holders: Vec<Holder> = Vec::new();
    let compute = device.running_compute_processes().ok()?;
    // Slices know of no graphics.
    let graphics = device.running_graphics_processes().unwrap_or_default();
    for process in compute.into_iter().chain(graphics) {
        let memory_mib = match process.used_gpu_memory {
            // A process without memory would not be there: some drivers do not know it in a container.
            UsedGpuMemory::Unavailable | UsedGpuMemory::Used(0) => None,
            UsedGpuMemory::Used(bytes) => Some(bytes as f64 / MIB),
        };
        let pid = process.pid;
        if holders.iter().all(|holder| holder.pid != pid) {
            holders.push(Holder { pid, memory_mib });
        }
    }
    Some(holders)
}

/// A slice has memory of its own, and the temperature of its GPU. Load and power of the whole are not its own.
fn of_slice(device: &Device<'_>, slice: &Device<'_>) -> Result<GpuSample, NvmlError> {
    let sample = read(slice)?;
    let of_device = device.temperature(TemperatureSensor::Gpu);
    Ok(GpuSample {
        temperature: sample.temperature.or(of_device.ok().map(f64::from)),
        ..sample
    })
}

fn read(device: &Device<'_>) -> Result<GpuSample, NvmlError> {
    let utilization = device.utilization_rates();
    let memory = device.memory_info();
    let temperature = device.temperature(TemperatureSensor::Gpu);
    let power = device.power_usage();
    // A GPU that answers nothing at all is lost; one that does not know a value simply does not know it.
    if let (Err(error), Err(_), Err(_), Err(_)) = (&utilization, &memory, &temperature, &power)
        && !matches!(error, NvmlError::NotSupported)
    {
        return Err(NvmlError::GpuLost);
    }
    let memory = memory.ok();
    let mib = |bytes: u64| bytes as f64 / MIB;
    Ok(GpuSample {
        index: 0,
        utilization_percent: utilization
            .ok()
            .map(|utilization| f64::from(utilization.gpu)),
        memory_used_mib: memory.as_ref().map(|memory| mib(memory.used)),
        memory_free_mib: memory.as_ref().map(|memory| mib(memory.free)),
        memory_total_mib: memory.as_ref().map(|memory| mib(memory.total)),
        temperature: temperature.ok().map(f64::from),
        power: power.ok().map(|milliwatts| f64::from(milliwatts) / 1000.0),
        memory_of_task_mib: None,
    })
}

/// Waits in the driver for faults of all GPUs here. It holds a library of its own: a wait lasts, and samples do not.
pub(super) fn listen(
    tell: &mut dyn FnMut(Xid),
    goes_on: &dyn Fn() -> bool,
) -> Result<(), NvmlError> {
    let nvml = Nvml::init()?;
    let numbers = numbers(&nvml)?;
    let mut set = nvml.create_event_set()?;
    for index in (0..).take(numbers.len()) {
        // One that is lost, or cannot tell, does not keep the others from being heard.
        let Ok(device) = nvml.device_by_index(index) else {
            continue;
        };
        let tells = device
            .supported_event_types()
            .is_ok_and(|types| types.contains(EventTypes::CRITICAL_XID_ERROR));
        if tells {
            set = device
                .register_events(EventTypes::CRITICAL_XID_ERROR, set)
                .map_err(|refused| refused.error)?;
        }
    }
    while goes_on() {
        match set.wait(LISTEN) {
            Ok(event) => {
                if let Some(XidError::Value(number)) = event.event_data {
                    let index = event.device.index().ok();
                    let gpus = index.and_then(|index| numbers.get(usize::try_from(index).ok()?));
                    match gpus.filter(|gpus| !gpus.is_empty()) {
                        Some(gpus) => {
                            for gpu in gpus.clone().map(Some) {
                                tell(Xid { gpu, number });
                            }
                        }
                        None => tell(Xid { gpu: None, number }),
                    }
                }
            }
            Err(NvmlError::Timeout) => {}
            // What tells of the loss may still come, and so may faults of the others.
            Err(NvmlError::GpuLost) => thread::sleep(Duration::from_millis(u64::from(LISTEN))),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
