//! Whether another user may use a file, by the permission bits that the kernel would look at.

use rustix::fs::{Access, Stat};
use std::path::{Path, PathBuf};

/// A user and the groups it is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Account {
    uid: u32,
    gids: Vec<u32>,
}

/// What stands in the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Obstacle {
    /// The file or directory.
    pub path: PathBuf,
    /// Its mode, owner and group.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
}

impl Account {
    /// Looks a user up in this host's files; users that only a network directory knows are not found.
    pub fn of(name: &str) -> Option<Account> {
        let passwd = std::fs::read_to_string("/etc/passwd").ok()?;
        let group = std::fs::read_to_string("/etc/group").unwrap_or_default();
        Account::parse(name, &passwd, &group)
    }

    fn parse(name: &str, passwd: &str, group: &str) -> Option<Account> {
        let mut entry = passwd
            .lines()
            .map(|line| line.split(':'))
            .find_map(|mut fields| (fields.next()? == name).then_some(fields))?;
        let uid = entry.nth(1)?.parse().ok()?;
        let mut gids = vec![entry.next()?.parse().ok()?];
        for line in group.lines() {
            let fields: Vec<_> = line.split(':').collect();
            if let [_, _, gid, members] = fields[..]
                && members.split(',').any(|member| member == name)
                && let Ok(gid) = gid.parse()
            {
                gids.push(gid);
            }
        }
        Some(Account { uid, gids })
    }

    /// Whether the bits of `stat` allow `wanted`. Access control lists are not looked at: they can only be told from
    /// the group's bits by asking for them, and no package of ours sets any.
    fn allows(&self, stat: &Stat, wanted: Access) -> bool {
        let shift = match () {
            () if self.uid == 0 => return true,
            () if stat.st_uid == self.uid => 6,
            () if self.gids.contains(&stat.st_gid) => 3,
            () => 0,
        };
        let bits = (stat.st_mode >> shift) & 7;
        let needed = wanted.bits() & 7;
        bits & needed == needed
    }

    /// What keeps this user from connecting to `socket`, if anything does: a directory on the way, or itself.
    pub fn obstacle(&self, socket: &Path) -> Option<Obstacle> {
        let mut ways: Vec<_> = socket.ancestors().collect();
        ways.reverse();
        for path in ways {
            let wanted = match path == socket {
                true => Access::READ_OK | Access::WRITE_OK,
                false => Access::EXEC_OK,
            };
            // What is not there is another check's business.
            let stat = rustix::fs::stat(path).ok()?;
            if !self.allows(&stat, wanted) {
                let (mode, uid, gid) = (stat.st_mode & 0o7777, stat.st_uid, stat.st_gid);
                return Some(Obstacle {
                    path: path.into(),
                    mode,
                    uid,
                    gid,
                });
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn accounts_and_their_groups() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nlibvirt-qemu:x:64055:64055::/:/bin/false\n";
        let group = "kvm:x:104:libvirt-qemu,other\nfirn:x:200:someone\nbroken\n";
        let account = Account::parse("libvirt-qemu", passwd, group).unwrap();
        assert_eq!(
            account,
            Account {
                uid: 64055,
                gids: vec![64055, 104]
            }
        );
        assert_eq!(Account::parse("qemu", passwd, group), None);
    }

    #[test]
    fn the_first_closed_door_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("web.sock");
        std::fs::write(&socket, "").unwrap();
        let set = |path: &Path, mode| {
            std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap()
        };
        let gid = rustix::fs::stat(&socket).unwrap().st_gid;
        let stranger = Account {
            uid: 64055,
            gids: vec![64055],
        };
        let member = Account {
            uid: 64055,
            gids: vec![gid],
        };
        set(dir.path(), 0o700);
        set(&socket, 0o660);
        assert_eq!(stranger.obstacle(&socket).unwrap().path, dir.path());
        set(dir.path(), 0o711);
        assert_eq!(stranger.obstacle(&socket).unwrap().path, socket);
        assert_eq!(stranger.obstacle(&socket).unwrap().mode, 0o660);
        set(dir.path(), 0o710);
        assert_eq!(member.obstacle(&socket), None);
    }
}
