//! How long a worker goes on looking before it sleeps.
//!
//! Sleeping and being woken costs more than many a request: where the next request tends to come soon after the last
//! answer, looking for it a little longer is cheaper for everybody (and spares the guest the kick, which under KVM is an
//! exit). Where it does not, the time is wasted, and so none is spent. After the adaptive polling of QEMU's event loop
//! (`util/aio-posix.c`).

use std::time::Duration;

/// The longest that a worker ever looks in vain: about what being woken costs.
const MOST: Duration = Duration::from_micros(50);
/// Where growing begins.
const LEAST: Duration = Duration::from_micros(6);

/// The span that is worth looking for.
#[derive(Debug, Default)]
pub struct Patience {
    span: Duration,
}

impl Patience {
    /// How long to look now.
    pub fn span(&self) -> Duration {
        self.span
    }

    /// The worker slept this long until something came.
    pub fn slept(&mut self, time: Duration) {
        self.span = if time > MOST {
            Duration::ZERO
        } else if time > self.span {
            (self.span * 2).clamp(LEAST, MOST)
        } else {
            self.span
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn us(n: u64) -> Duration {
        Duration::from_micros(n)
    }

    #[test]
    fn it_grows_where_looking_longer_would_have_helped() {
        let mut patience = Patience::default();
        assert_eq!(patience.span(), us(0));
        let spans = [30, 30, 30, 30, 30].map(|slept| {
            patience.slept(us(slept));
            patience.span()
        });
        assert_eq!(spans, [us(6), us(12), us(24), us(48), us(48)]);
        patience.slept(us(49));
        assert_eq!(patience.span(), MOST);
    }

    #[test]
    fn it_ends_where_nothing_comes_soon() {
        let mut patience = Patience::default();
        patience.slept(us(40));
        patience.slept(us(51));
        assert_eq!(
            patience.span(),
            us(0),
            "at once: an idle backend uses no CPU"
        );
        patience.slept(Duration::MAX);
        assert_eq!(patience.span(), us(0));
    }
}
