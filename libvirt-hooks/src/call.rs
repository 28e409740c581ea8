//! What libvirt calls about: <https://libvirt.org/hooks.html>.

use std::time::Duration;

/// How long a start waits for the backends of all its vDisks. The host may be booting.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// How long what must not hold up libvirt may take.
pub const BRIEF: Duration = Duration::from_millis(900);

/// What happens to a domain, as far as it is our business.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// It is about to be started: failing keeps it from that, and what is said is shown.
    Prepare,
    /// It is being migrated here, and `prepare` comes next. What is said on standard output would become its XML.
    Incoming,
    /// Its QEMU has just started. Failing would end it.
    Started,
    /// Its QEMU was found again by a new libvirtd. Failing would kill it.
    Found,
    /// It is over: its QEMU has gone, or has never come. libvirt says `stopped` first, and only now why.
    Over,
    /// Whatever needs nothing of ours: `start` and `stopped`, `restore`, whose XML stays as it is and which is a start like any other, and what later libvirts call.
    Other,
}

/// One call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// What happens to it.
    pub operation: Operation,
    /// Why, where libvirt tells: `shutdown`, `crashed`, `destroyed`, `migrated`, `failed` and so on.
    pub reason: Option<String>,
}

impl Call {
    /// How long it may take at most, whatever happens.
    pub fn limit(&self) -> Duration {
        match self.operation {
            Operation::Prepare => PATIENCE * 2,
            _ => BRIEF,
        }
    }

    /// Takes the arguments apart. Whatever is odd is none of our business: a hook that fails keeps guests from starting.
    pub fn of(args: impl Iterator<Item = String>) -> Call {
        // The first is the domain's name, which its XML has too.
        let mut args = args.fuse().skip(1);
        let operation = match args.next().as_deref() {
            Some("prepare") => Operation::Prepare,
            Some("migrate") => Operation::Incoming,
            Some("started") => Operation::Started,
            Some("reconnect" | "attach") => Operation::Found,
            Some("release") => Operation::Over,
            _ => Operation::Other,
        };
        let reason = args.nth(1).filter(|reason| reason != "-");
        Call { operation, reason }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(line: &str) -> Call {
        Call::of(line.split(' ').map(str::to_owned))
    }

    #[test]
    fn what_libvirt_says() {
        let over = call("web release end crashed");
        assert_eq!(over.operation, Operation::Over);
        assert_eq!(over.reason.as_deref(), Some("crashed"));
        let prepare = call("web prepare begin -");
        assert_eq!(
            (prepare.operation, prepare.reason),
            (Operation::Prepare, None)
        );
        assert_eq!(call("web reconnect begin -").operation, Operation::Found);
        assert_eq!(call("web migrate begin -").operation, Operation::Incoming);
        for other in [
            "",
            "web",
            "web restore begin -",
            "web stopped end -",
            "web x y z",
        ] {
            assert_eq!(call(other).operation, Operation::Other, "{other:?}");
        }
    }
}
