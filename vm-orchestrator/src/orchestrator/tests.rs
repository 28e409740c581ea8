//! Workflows against a hypervisor that fails on demand, and a real backend.
