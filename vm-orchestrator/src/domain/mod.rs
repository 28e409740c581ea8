//! libvirt's XML of domains: what is ours in one ([`read`]), and how it is changed ([`edit`]).

pub(crate) mod edit;
pub(crate) mod read;
