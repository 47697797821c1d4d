//! `swarm init`, `join`, `leave`.

use brig_api::data::SecretText;
use brig_api::swarm::{SwarmInitRequest, SwarmJoinRequest};
use brig_api::system::SystemInfo;
use clap::Args;

use super::spec::{Autolock, SpecFlags};
use super::token::print_join_command;
use super::unlock::print_unlock_key;
use crate::cli::leaf;
use crate::client::Call;
use crate::context::Context;
use crate::error::{Error, Result, message};
use crate::parse::{BadValue, bad, swarm::listen_addr};

leaf!(INIT, "init", "[OPTIONS]", "Initialize a swarm", InitArgs, init);
leaf!(JOIN, "join", "[OPTIONS] HOST:PORT", "Join a swarm as a node and/or manager", JoinArgs, join);
leaf!(LEAVE, "leave", "[OPTIONS]", "Leave the swarm", LeaveArgs, leave);

fn availability(text: &str) -> Result<String, BadValue> {
    let text = text.to_ascii_lowercase();
    match text.as_str() {
        "active" | "pause" | "drain" => Ok(text),
        _ => bad(format!(
            "invalid availability {text:?}, only active, pause and drain are supported"
        )),
    }
}

#[derive(Args, Debug)]
struct InitArgs {
    /// Advertised address (format: "<ip|interface>[:port]")
    #[arg(long, default_value = "")]
    advertise_addr: String,
    #[command(flatten)]
    autolock: Autolock,
    /// Availability of the node ("active", "pause", "drain") (default "active")
    #[arg(long, value_parser = availability)]
    availability: Option<String>,
    /// Address or interface to use for data path traffic (format: "<ip|interface>")
    #[arg(long, default_value = "")]
    data_path_addr: String,
    /// Port number to use for data path traffic (1024 - 49151); 0 is the default port (4789)
    #[arg(long, default_value_t = 0)]
    data_path_port: u32,
    /// Default address pool in CIDR format
    #[arg(long, value_delimiter = ',')]
    default_addr_pool: Vec<String>,
    /// Default address pool subnet mask length
    #[arg(long, default_value_t = 24)]
    default_addr_pool_mask_length: u32,
    /// Force create a new cluster from current state
    #[arg(long)]
    force_new_cluster: bool,
    /// Listen address (format: "<ip|interface>[:port]")
    #[arg(long, default_value = "0.0.0.0:2377", value_parser = listen_addr)]
    listen_addr: String,
    #[command(flatten)]
    spec: SpecFlags,
}

impl InitArgs {
    fn request(&self) -> Result<SwarmInitRequest> {
        if self.data_path_port != 0 && !(1024..=49151).contains(&self.data_path_port) {
            return Err(message(format!(
                "data path port must be between 1024 and 49151, not {}",
                self.data_path_port
            )));
        }
        let mut request = SwarmInitRequest {
            listen_addr: self.listen_addr.clone(),
            advertise_addr: self.advertise_addr.clone(),
            data_path_addr: self.data_path_addr.clone(),
            data_path_port: self.data_path_port,
            force_new_cluster: self.force_new_cluster,
            auto_lock_managers: self.autolock.0.unwrap_or(false),
            availability: self.availability.clone().unwrap_or_default(),
            default_addr_pool: self.default_addr_pool.clone(),
            subnet_size: self.default_addr_pool_mask_length,
            ..SwarmInitRequest::default()
        };
        request.spec.encryption_config.auto_lock_managers = request.auto_lock_managers;
        self.spec.apply(&mut request.spec);
        Ok(request)
    }
}

async fn init(context: &Context, args: InitArgs) -> Result<()> {
    let request = args.request()?;
    let node: Result<String> = context.client.json(Call::post("/swarm/init").json(&request)?).await;
    let node = match node {
        Err(Error::Api { message: text, .. })
            if text.contains("could not choose an IP address to advertise")
                || text.contains("could not find the system's IP address") =>
        {
            return Err(message(format!("{text} - specify one with --advertise-addr")));
        }
        node => node?,
    };
    crate::output::line(&format!("Swarm initialized: current node ({node}) is now a manager.\n"))?;
    print_join_command(context, &node, "worker").await?;
    crate::output::line(&format!(
        "To add a manager to this swarm, run '{} swarm join-token manager' and follow the instructions.\n",
        context.program
    ))?;
    if request.auto_lock_managers {
        print_unlock_key(context).await?;
    }
    Ok(())
}

#[derive(Args)]
struct JoinArgs {
    /// Advertised address (format: "<ip|interface>[:port]")
    #[arg(long, default_value = "")]
    advertise_addr: String,
    /// Availability of the node ("active", "pause", "drain") (default "active")
    #[arg(long, value_parser = availability)]
    availability: Option<String>,
    /// Address or interface to use for data path traffic (format: "<ip|interface>")
    #[arg(long, default_value = "")]
    data_path_addr: String,
    /// Listen address (format: "<ip|interface>[:port]")
    #[arg(long, default_value = "0.0.0.0:2377", value_parser = listen_addr)]
    listen_addr: String,
    /// Token for entry into the swarm
    #[arg(long, default_value = "")]
    token: String,
    #[arg(hide = true)]
    remote: String,
}

async fn join(context: &Context, args: JoinArgs) -> Result<()> {
    let request = SwarmJoinRequest {
        listen_addr: args.listen_addr,
        advertise_addr: args.advertise_addr,
        data_path_addr: args.data_path_addr,
        remote_addrs: vec![args.remote],
        join_token: SecretText::from(args.token),
        availability: args.availability.unwrap_or_default(),
    };
    let len = request.join_token.expose_secret().len();
    context.client.none(Call::post("/swarm/join").secret_json(&request, len)?).await?;
    let info: SystemInfo = context.client.json(Call::get("/info")).await?;
    let role = if info.swarm.control_available { "manager" } else { "worker" };
    crate::output::line(&format!("This node joined a swarm as a {role}."))
}

#[derive(Args, Debug)]
struct LeaveArgs {
    /// Force this node to leave the swarm, ignoring warnings
    #[arg(long, short = 'f')]
    force: bool,
}

async fn leave(context: &Context, args: LeaveArgs) -> Result<()> {
    context.client.none(Call::post("/swarm/leave").query_if("force", args.force)).await?;
    crate::output::line("Node left the swarm.")
}

#[cfg(test)]
mod tests {
    use clap::FromArgMatches as _;

    use super::*;

    #[test]
    fn a_plain_init_is_the_captured_body() {
        let matches = INIT.command("brig swarm init").try_get_matches_from(["init"]).unwrap();
        let request = InitArgs::from_arg_matches(&matches).unwrap().request().unwrap();
        assert_eq!(
            serde_json::to_string(&request).unwrap(),
            r#"{"ListenAddr":"0.0.0.0:2377","AdvertiseAddr":"","DataPathAddr":"","DataPathPort":0,"ForceNewCluster":false,"Spec":{"Labels":null,"Orchestration":{},"Raft":{"ElectionTick":0,"HeartbeatTick":0},"Dispatcher":{},"CAConfig":{},"TaskDefaults":{},"EncryptionConfig":{"AutoLockManagers":false}},"AutoLockManagers":false,"Availability":"","DefaultAddrPool":null,"SubnetSize":24}"#
        );
    }
}
