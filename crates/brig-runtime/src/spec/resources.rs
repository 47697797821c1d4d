//! Control group limits.

use oci_spec::runtime::{
    LinuxBlockIo, LinuxBlockIoBuilder, LinuxCpu, LinuxCpuBuilder, LinuxMemory, LinuxMemoryBuilder,
    LinuxPids, LinuxResources, LinuxResourcesBuilder, LinuxThrottleDevice,
    LinuxThrottleDeviceBuilder, LinuxWeightDevice, LinuxWeightDeviceBuilder,
};

use super::input::{BlkioSpec, ContainerSpecInput, Resources, ThrottleDevice};
use super::{SpecError, devices};

/// Microseconds; what `--cpus` divides.
const CPU_PERIOD: i64 = 100_000;

pub(super) fn build(input: &ContainerSpecInput) -> Result<LinuxResources, SpecError> {
    let wanted = &input.resources;
    let mut resources = LinuxResourcesBuilder::default().build().unwrap_or_default();
    resources
        .set_devices(Some(devices::rules(input)?))
        .set_memory(memory(wanted))
        .set_cpu(cpu(wanted))
        .set_pids(pids(wanted))
        .set_block_io(block_io(&wanted.blkio)?);
    Ok(resources)
}

/// Limits to change of a container that runs, as the OCI runtimes read them; nothing else in it.
///
/// # Errors
/// Values that the runtime specification cannot hold.
pub fn resources_document(wanted: &Resources) -> Result<Vec<u8>, SpecError> {
    let mut resources = LinuxResources::default();
    resources
        .set_devices(None)
        .set_memory(memory(wanted))
        .set_cpu(cpu(wanted))
        .set_pids(pids(wanted))
        .set_block_io(block_io(&wanted.blkio)?);
    serde_json::to_vec(&resources).map_err(SpecError::oci)
}

fn set(value: Option<i64>) -> Option<i64> {
    value.filter(|value| *value != 0)
}

fn positive(value: Option<i64>) -> Option<u64> {
    value.and_then(|value| u64::try_from(value).ok()).filter(|value| *value > 0)
}

fn memory(wanted: &Resources) -> Option<LinuxMemory> {
    let limit = set(wanted.memory).filter(|limit| *limit > 0);
    // COMPAT: as much swap again as memory unless told otherwise.
    let swap = set(wanted.memory_swap).or_else(|| limit.map(|limit| limit.saturating_mul(2)));
    let mut memory = LinuxMemoryBuilder::default().build().unwrap_or_default();
    memory
        .set_limit(limit)
        .set_swap(swap)
        .set_reservation(set(wanted.memory_reservation).filter(|bytes| *bytes > 0))
        .set_swappiness(wanted.memory_swappiness.and_then(|percent| u64::try_from(percent).ok()))
        .set_disable_oom_killer(wanted.oom_kill_disable.then_some(true));
    (memory != LinuxMemory::default()).then_some(memory)
}

fn cpu(wanted: &Resources) -> Option<LinuxCpu> {
    let (period, quota) = match positive(wanted.nano_cpus) {
        Some(nano) => {
            // Billionths of a processor, in microseconds of each period.
            let period = CPU_PERIOD.unsigned_abs();
            let quota = u128::from(nano) * u128::from(period) / 1_000_000_000;
            (Some(period), Some(i64::try_from(quota).unwrap_or(i64::MAX)))
        }
        None => (positive(wanted.cpu_period), set(wanted.cpu_quota)),
    };
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let mut cpu = LinuxCpuBuilder::default().build().unwrap_or_default();
    cpu.set_shares(positive(wanted.cpu_shares))
        .set_period(period)
        .set_quota(quota)
        .set_realtime_period(positive(wanted.cpu_realtime_period))
        .set_realtime_runtime(set(wanted.cpu_realtime_runtime))
        .set_cpus(text(&wanted.cpuset_cpus))
        .set_mems(text(&wanted.cpuset_mems));
    (cpu != LinuxCpu::default()).then_some(cpu)
}

fn pids(wanted: &Resources) -> Option<LinuxPids> {
    set(wanted.pids_limit).map(|limit| {
        let mut pids = LinuxPids::default();
        pids.set_limit(limit.max(-1));
        pids
    })
}

fn block_io(wanted: &BlkioSpec) -> Result<Option<LinuxBlockIo>, SpecError> {
    if *wanted == BlkioSpec::default() {
        return Ok(None);
    }
    let weights: Vec<LinuxWeightDevice> = wanted
        .weight_devices
        .iter()
        .map(|device| {
            LinuxWeightDeviceBuilder::default()
                .major(device.major)
                .minor(device.minor)
                .weight(device.weight)
                .build()
                .map_err(SpecError::oci)
        })
        .collect::<Result<_, _>>()?;
    let mut block_io = LinuxBlockIoBuilder::default().build().unwrap_or_default();
    block_io
        .set_weight((wanted.weight > 0).then_some(wanted.weight))
        .set_weight_device((!weights.is_empty()).then_some(weights))
        .set_throttle_read_bps_device(throttle(&wanted.read_bps)?)
        .set_throttle_write_bps_device(throttle(&wanted.write_bps)?)
        .set_throttle_read_iops_device(throttle(&wanted.read_iops)?)
        .set_throttle_write_iops_device(throttle(&wanted.write_iops)?);
    Ok(Some(block_io))
}

fn throttle(devices: &[ThrottleDevice]) -> Result<Option<Vec<LinuxThrottleDevice>>, SpecError> {
    let list: Vec<LinuxThrottleDevice> = devices
        .iter()
        .map(|device| {
            LinuxThrottleDeviceBuilder::default()
                .major(device.major)
                .minor(device.minor)
                .rate(device.rate)
                .build()
                .map_err(SpecError::oci)
        })
        .collect::<Result<_, _>>()?;
    Ok((!list.is_empty()).then_some(list))
}
