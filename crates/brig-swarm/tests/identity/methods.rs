//! Every method of SwarmKit, as a worker and as nobody.

use std::sync::Arc;

use brig_proto::swarm::NodeRole;
use tonic::Code;

use crate::authority::Wanted;
use crate::wire::{address, anonymous, call, mutual};
use crate::{Off, id};

const ANYONE: [&str; 3] =
    ["CA/GetRootCACertificate", "NodeCA/IssueNodeCertificate", "NodeCA/NodeCertificateStatus"];

const NODES: [&str; 10] = [
    "Dispatcher/Session",
    "Dispatcher/Heartbeat",
    "Dispatcher/UpdateTaskStatus",
    "Dispatcher/UpdateVolumeStatus",
    "Dispatcher/Tasks",
    "Dispatcher/Assignments",
    "LogBroker/ListenSubscriptions",
    "LogBroker/PublishLogs",
    "ResourceAllocator/AttachNetwork",
    "ResourceAllocator/DetachNetwork",
];

const MANAGERS: [&str; 3] = ["CA/GetUnlockKey", "Health/Check", "Logs/SubscribeLogs"];

/// What SwarmKit's managers offer each other and their own daemon.
const NOT_SERVED: [&str; 54] = [
    "Control/GetNode",
    "Control/ListNodes",
    "Control/UpdateNode",
    "Control/RemoveNode",
    "Control/GetTask",
    "Control/ListTasks",
    "Control/RemoveTask",
    "Control/GetService",
    "Control/ListServices",
    "Control/CreateService",
    "Control/UpdateService",
    "Control/RemoveService",
    "Control/ListServiceStatuses",
    "Control/GetNetwork",
    "Control/ListNetworks",
    "Control/CreateNetwork",
    "Control/RemoveNetwork",
    "Control/GetCluster",
    "Control/ListClusters",
    "Control/UpdateCluster",
    "Control/GetSecret",
    "Control/UpdateSecret",
    "Control/ListSecrets",
    "Control/CreateSecret",
    "Control/RemoveSecret",
    "Control/GetConfig",
    "Control/UpdateConfig",
    "Control/ListConfigs",
    "Control/CreateConfig",
    "Control/RemoveConfig",
    "Control/GetExtension",
    "Control/CreateExtension",
    "Control/RemoveExtension",
    "Control/ListExtensions",
    "Control/GetResource",
    "Control/UpdateResource",
    "Control/ListResources",
    "Control/CreateResource",
    "Control/RemoveResource",
    "Control/CreateVolume",
    "Control/GetVolume",
    "Control/UpdateVolume",
    "Control/ListVolumes",
    "Control/RemoveVolume",
    "Watch/Watch",
    "Raft/ProcessRaftMessage",
    "Raft/StreamRaftMessage",
    "Raft/ResolveAddress",
    "RaftMembership/Join",
    "RaftMembership/Leave",
    "Dispatcher/Nothing",
    "CA/Nothing",
    "NodeCA/Nothing",
    "Nothing/Nothing",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_method_is_refused_to_whom_it_is_not_for() {
    let off = Off::new().await;
    let node = id();
    let roots = off.authority.root();
    let wanted = Wanted::worker(&off.cluster, &node);
    let (chain, client) = off.authority.client(&wanted, &roots);
    off.add(&node, NodeRole::Worker, &chain).await;
    let (swarm, control) = off.on().await;
    let address = address(&control);
    let worker = mutual(&address, Arc::new(client));
    let nobody = anonymous(&address, &roots).await;
    let manager = control.node("self").unwrap().id.clone();
    // What a manager says when it passes somebody else's call on.
    let forwarded = [
        ("forwarded_cert", "true"),
        ("forwarded_cert_cn", manager.as_str()),
        ("forwarded_cert_org", off.cluster.as_str()),
        ("forwarded_cert_ou", "swarm-manager"),
        ("remote_addr", "10.0.0.1:2377"),
    ];
    for metadata in [&[][..], &forwarded] {
        let code = async |channel: &tonic::transport::Channel, method: &str| {
            let path = format!("/docker.swarmkit.v1.{method}");
            call(channel.clone(), &path, metadata).await.map(|status| status.code())
        };
        for method in MANAGERS {
            for channel in [&worker, &nobody] {
                assert_eq!(code(channel, method).await, Some(Code::PermissionDenied), "{method}");
            }
        }
        for method in NODES {
            assert_eq!(code(&nobody, method).await, Some(Code::PermissionDenied), "{method}");
            assert_ne!(code(&worker, method).await, Some(Code::PermissionDenied), "{method}");
        }
        for method in NOT_SERVED {
            for channel in [&worker, &nobody] {
                assert_eq!(code(channel, method).await, Some(Code::Unimplemented), "{method}");
            }
        }
        for method in ANYONE {
            for channel in [&worker, &nobody] {
                assert_ne!(code(channel, method).await, Some(Code::PermissionDenied), "{method}");
            }
        }
    }
    swarm.leave(true).await.unwrap();
}
