//! What the `virt` crate does not wrap: events, and the guest agent's freezing.
//!
//! An edge module: unsafe code stands here, in the store's `io` and in the backend's `memory` only.

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

/// What happens to domains, and to the connection, is told to a listener as long as this lives. Callbacks hold their connection: it
/// would never be closed.
pub(super) struct Events {
    connection: Pointer,
    ids: Vec<c_int>,
    closes: bool,
}

/// A connection, which [`super::Connection`] has beside this.
struct Pointer(sys::virConnectPtr);

// SAFETY: libvirt's connections may be used by any thread; `virt`'s own type says so, too.
unsafe impl Send for Pointer {}
// SAFETY: as above.
unsafe impl Sync for Pointer {}

impl Drop for Events {
    fn drop(&mut self) {
        // Of a connection that has ended the daemon can't be told; what is registered here goes all the same.
        for id in &self.ids {
            // SAFETY: the connection is not freed before this: callbacks hold it.
            unsafe { sys::virConnectDomainEventDeregisterAny(self.connection.0, *id) };
        }
        if self.closes {
            // SAFETY: as above.
            unsafe { sys::virConnectUnregisterCloseCallback(self.connection.0, Some(on_close)) };
        }
    }
}

impl Events {
    /// Listens.
    pub(super) fn listen(connection: &Connect, listener: &Listener) -> Result<Events, Error> {
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
        // SAFETY: the connection is open.
        let pointer = unsafe { connection.as_ptr() };
        // What is registered goes again if all can't be.
        let mut events = Events {
            connection: Pointer(pointer),
            ids: Vec::new(),
            closes: false,
        };
        for (event, callback) in [
            (sys::VIR_DOMAIN_EVENT_ID_LIFECYCLE, lifecycle),
            (sys::VIR_DOMAIN_EVENT_ID_METADATA_CHANGE, metadata),
            (sys::VIR_DOMAIN_EVENT_ID_DEVICE_ADDED, device),
            (sys::VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED, device),
            (sys::VIR_DOMAIN_EVENT_ID_JOB_COMPLETED, job),
        ] {
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
            events.ids.push(id);
        }
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
        events.closes = true;
        Ok(events)
    }
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
