//! Who answers, and since when. A change is said once, in the log.

use super::now;
use control_api::types::Link;
use parking_lot::Mutex;
use std::path::Path;

/// The two that an orchestrator stands on.
pub(super) struct Links {
    libvirt: Mutex<Option<Link>>,
    backend: Mutex<Option<Link>>,
    places: [String; 2],
}

impl Links {
    pub fn new(libvirt: &str, backend: &Path) -> Links {
        Links {
            libvirt: Mutex::new(None),
            backend: Mutex::new(None),
            places: [libvirt.to_owned(), backend.display().to_string()],
        }
    }

    /// Notes that libvirt answers, or why not. Whether it is up again.
    pub fn libvirt(&self, answer: Result<(), String>) -> bool {
        note(&self.libvirt, "libvirt", &self.places[0], answer)
    }

    /// The same for the backend.
    pub fn backend(&self, answer: Result<(), String>) -> bool {
        note(&self.backend, "the backend", &self.places[1], answer)
    }

    /// How both are.
    pub fn both(&self) -> (Link, Link) {
        let unknown = |place: &String| Link {
            place: place.clone(),
            up: false,
            since: now(),
            error: Some("not asked yet".into()),
        };
        let of = |link: &Mutex<Option<Link>>, place| {
            link.lock().clone().unwrap_or_else(|| unknown(place))
        };
        (
            of(&self.libvirt, &self.places[0]),
            of(&self.backend, &self.places[1]),
        )
    }
}

fn note(link: &Mutex<Option<Link>>, who: &str, place: &str, answer: Result<(), String>) -> bool {
    let mut link = link.lock();
    let was = link.as_ref().map(|link| link.up);
    let up = answer.is_ok();
    if was == Some(up) {
        return false;
    }
    match &answer {
        Ok(()) if was.is_none() => log::info!("{who} answers at {place}"),
        Ok(()) => log::info!("{who} answers again at {place}"),
        Err(why) => log::error!("{who} does not answer at {place}: {why}"),
    }
    *link = Some(Link {
        place: place.to_owned(),
        up,
        since: now(),
        error: answer.err(),
    });
    up
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_noted() {
        let links = Links::new("qemu:///system", Path::new("/run/firn/control.sock"));
        assert!(!links.both().0.up);
        assert!(links.libvirt(Ok(())));
        assert!(!links.libvirt(Ok(())), "it was up");
        assert!(!links.libvirt(Err("gone".into())));
        assert_eq!(links.both().0.error.as_deref(), Some("gone"));
        assert!(links.libvirt(Ok(())), "again");
        assert!(!links.both().1.up);
    }
}
