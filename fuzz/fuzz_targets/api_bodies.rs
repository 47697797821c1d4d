//! Bodies of requests.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = serde_json_slice(data);
});

fn serde_json_slice(data: &[u8]) -> bool {
    brig_api_json::<brig_api::container::ContainerCreateRequest>(data)
        | brig_api_json::<brig_api::exec::ExecConfig>(data)
        | brig_api_json::<brig_api::network::NetworkCreateRequest>(data)
        | brig_api_json::<brig_api::swarm::ServiceSpec>(data)
        | brig_api_json::<brig_api::swarm::SwarmInitRequest>(data)
}

fn brig_api_json<T: for<'a> serde::Deserialize<'a>>(data: &[u8]) -> bool {
    serde_json::from_slice::<T>(data).is_ok()
}
