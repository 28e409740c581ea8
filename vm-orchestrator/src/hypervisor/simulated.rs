//! A hypervisor that fails on demand.
