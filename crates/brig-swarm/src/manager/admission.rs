//! What nodes need to judge images by themselves: the policies, and verified metadata.

use brig_proto::brig::{
    AdmissionFacts, AdmissionFactsRequest, Policy, TrustMetadata, admission_server,
};
use brig_store::{State, Store};
use tonic::{Request, Response, Status};

/// Longest name of a repository.
const MAX_NAME: usize = 512;

/// The service that nodes call.
#[derive(Clone)]
pub(crate) struct Facts(pub(crate) Store);

/// What is stored.
pub(crate) fn facts(state: &State, repository: &str) -> AdmissionFacts {
    AdmissionFacts {
        policies: state.all::<Policy>().map(|policy| policy.as_ref().clone()).collect(),
        evidence: state
            .by_name::<TrustMetadata>(repository)
            .map(|evidence| evidence.as_ref().clone()),
    }
}

#[tonic::async_trait]
impl admission_server::Admission for Facts {
    async fn facts(
        &self,
        request: Request<AdmissionFactsRequest>,
    ) -> Result<Response<AdmissionFacts>, Status> {
        let repository = request.into_inner().repository;
        if repository.len() > MAX_NAME {
            return Err(Status::invalid_argument("the repository's name is too long"));
        }
        Ok(Response::new(facts(&self.0.view(), &repository)))
    }
}
