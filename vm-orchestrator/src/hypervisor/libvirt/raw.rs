//! What the `virt` crate does not wrap: events, and the guest agent's freezing.
//!
//! This is an edge module: unsafe code stands here and in the other two only.

use super::Listener;
use crate::hypervisor::Event;
use std::ffi::{c_char, c_int, c_void};
use std::ptr;
use uuid::Uuid;
use virt::connect::Connect;
use virt::domain::Domain;
use virt::error::Error;
use virt::sys;

type Opaque = *mut c_void;

/// Has what happens to domains, and to the connection, told to a listener, until the connection is closed.
pub(super) fn listen(connection: &Connect, listener: &Listener) -> Result<(), Error> {
    type Generic = unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, Opaque);
    // SAFETY: libvirt's callbacks differ in what stands between the domain and the opaque pointer; it casts each to what its event has. The
    // functions here have just the parameters of their events.
    let lifecycle = unsafe {
        std::mem::transmute::<
            unsafe extern "C" fn(
                sys::virConnectPtr,
                sys::virDomainPtr,
                c_int,
                c_int,
                Opaque,
            ) -> c_int,
            Generic,
        >(on_lifecycle)
    };
    // SAFETY: as above.
    let metadata = unsafe {
        std::mem::transmute::<
            unsafe extern "C" fn(
                sys::virConnectPtr,
                sys::virDomainPtr,
                c_int,
                *const c_char,
                Opaque,
            ),
            Generic,
        >(on_metadata)
    };
    // SAFETY: as above.
    let device = unsafe {
        std::mem::transmute::<
            unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, *const c_char, Opaque),
            Generic,
        >(on_device)
    };
    // SAFETY: as above.
    let job = unsafe {
        std::mem::transmute::<
            unsafe extern "C" fn(
                sys::virConnectPtr,
                sys::virDomainPtr,
                sys::virTypedParameterPtr,
                c_int,
                Opaque,
            ),
            Generic,
        >(on_job)
    };
    for (event, callback) in [
        (sys::VIR_DOMAIN_EVENT_ID_LIFECYCLE, lifecycle),
        (sys::VIR_DOMAIN_EVENT_ID_METADATA_CHANGE, metadata),
        (sys::VIR_DOMAIN_EVENT_ID_DEVICE_ADDED, device),
        (sys::VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED, device),
        (sys::VIR_DOMAIN_EVENT_ID_JOB_COMPLETED, job),
    ] {
        // SAFETY: the connection is open.
        let pointer = unsafe { connect_pointer(connection) };
        let opaque = Box::into_raw(Box::new(listener.clone())).cast::<c_void>();
        // SAFETY: the callback is the event's; the listener is freed by `free` when libvirt no longer calls it.
        let id = unsafe {
            sys::virConnectDomainEventRegisterAny(
                pointer,
                ptr::null_mut(),
                event as c_int,
                Some(callback),
                opaque,
                Some(free),
            )
        };
        if id < 0 {
            // SAFETY: libvirt has not taken it.
            unsafe { free(opaque) };
            return Err(Error::last_error());
        }
    }
    // SAFETY: the connection is open.
    let pointer = unsafe { connect_pointer(connection) };
    let opaque = Box::into_raw(Box::new(listener.clone())).cast::<c_void>();
    // SAFETY: as for the events.
    let registered = unsafe {
        sys::virConnectRegisterCloseCallback(pointer, Some(on_close), opaque, Some(free))
    };
    if registered < 0 {
        // SAFETY: libvirt has not taken it.
        unsafe { free(opaque) };
        return Err(Error::last_error());
    }
    Ok(())
}

/// # Safety
/// What is returned lives as long as the connection.
unsafe fn connect_pointer(connection: &Connect) -> sys::virConnectPtr {
    // SAFETY: the caller's.
    unsafe { connection.as_ptr() }
}

unsafe extern "C" fn free(opaque: Opaque) {
    // SAFETY: it was made by `Box::into_raw` of a listener, and libvirt frees it once.
    drop(unsafe { Box::from_raw(opaque.cast::<Listener>()) });
}

/// # Safety
/// `opaque` is a listener that was registered, `domain` one that libvirt calls back for.
unsafe fn tell(domain: sys::virDomainPtr, opaque: Opaque) {
    let mut uuid = [0u8; 16];
    // SAFETY: the domain is libvirt's, and the buffer has the size of a UUID.
    let known = unsafe { sys::virDomainGetUUID(domain, uuid.as_mut_ptr()) };
    // SAFETY: the caller's.
    let listener = unsafe { &*opaque.cast::<Listener>() };
    listener(match known {
        0 => Event::Changed(Uuid::from_bytes(uuid)),
        _ => Event::Connection,
    });
}

unsafe extern "C" fn on_lifecycle(
    _: sys::virConnectPtr,
    domain: sys::virDomainPtr,
    _: c_int,
    _: c_int,
    opaque: Opaque,
) -> c_int {
    // SAFETY: libvirt gives what was registered.
    unsafe { tell(domain, opaque) };
    0
}

unsafe extern "C" fn on_metadata(
    _: sys::virConnectPtr,
    domain: sys::virDomainPtr,
    _: c_int,
    _: *const c_char,
    opaque: Opaque,
) {
    // SAFETY: libvirt gives what was registered.
    unsafe { tell(domain, opaque) };
}

unsafe extern "C" fn on_device(
    _: sys::virConnectPtr,
    domain: sys::virDomainPtr,
    _: *const c_char,
    opaque: Opaque,
) {
    // SAFETY: libvirt gives what was registered.
    unsafe { tell(domain, opaque) };
}

unsafe extern "C" fn on_job(
    _: sys::virConnectPtr,
    domain: sys::virDomainPtr,
    _: sys::virTypedParameterPtr,
    _: c_int,
    opaque: Opaque,
) {
    // SAFETY: libvirt gives what was registered.
    unsafe { tell(domain, opaque) };
}

unsafe extern "C" fn on_close(_: sys::virConnectPtr, _: c_int, opaque: Opaque) {
    // SAFETY: libvirt gives what was registered.
    let listener = unsafe { &*opaque.cast::<Listener>() };
    listener(Event::Connection);
}

/// Gives the guest agent so many seconds for each answer. libvirt's default is to wait for ever.
fn be_patient(domain: &Domain, seconds: u16) -> Result<(), Error> {
    // SAFETY: the domain is there.
    let pointer = unsafe { domain.as_ptr() };
    // SAFETY: as above.
    let set = unsafe { sys::virDomainAgentSetResponseTimeout(pointer, c_int::from(seconds), 0) };
    if set < 0 {
        return Err(Error::last_error());
    }
    Ok(())
}

/// Freezes all filesystems of the guest.
pub(super) fn freeze(domain: &Domain, seconds: u16) -> Result<u32, Error> {
    be_patient(domain, seconds)?;
    // SAFETY: the domain is there.
    let pointer = unsafe { domain.as_ptr() };
    // SAFETY: as above; no mount points, which means all.
    let frozen = unsafe { sys::virDomainFSFreeze(pointer, ptr::null_mut(), 0, 0) };
    u32::try_from(frozen).map_err(|_| Error::last_error())
}

/// Thaws them.
pub(super) fn thaw(domain: &Domain, seconds: u16) -> Result<(), Error> {
    be_patient(domain, seconds)?;
    // SAFETY: the domain is there.
    let pointer = unsafe { domain.as_ptr() };
    // SAFETY: as above.
    let thawed = unsafe { sys::virDomainFSThaw(pointer, ptr::null_mut(), 0, 0) };
    if thawed < 0 {
        return Err(Error::last_error());
    }
    Ok(())
}
