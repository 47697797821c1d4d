//! Protobuf messages of other nodes.
#![no_main]

use prost::Message as _;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = brig_proto::swarm::SessionRequest::decode(data);
    let _ = brig_proto::swarm::AssignmentsMessage::decode(data);
    let _ = brig_proto::swarm::UpdateTaskStatusRequest::decode(data);
    let _ = brig_proto::swarm::IssueNodeCertificateRequest::decode(data);
});
