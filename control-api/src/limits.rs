//! What vDisks and snapshots may be called and how large a vDisk may be: one place, asked by the command line and by the backend.

/// Smallest vDisk, in bytes: one block.
pub const SIZE_MIN: u64 = 4 << 10;
/// Largest vDisk, in bytes: 64 TiB.
pub const SIZE_MAX: u64 = 64 << 40;
/// Sizes are multiples of this many bytes: what guests address.
pub const SECTOR: u64 = 512;
/// Longest name of a vDisk or a snapshot, in characters.
pub const NAME_MAX: usize = 64;
/// Queues of a vDisk, at most.
pub const QUEUES_MAX: u16 = 64;
/// Longest name of a libvirt domain, in bytes.
pub const DOMAIN_NAME_MAX: usize = 255;
/// Longest reason for which a domain has stopped, in bytes.
pub const REASON_MAX: usize = 64;
/// Names that no vDisk can have, because `RUN/NAME.sock` is taken by another socket.
pub const RESERVED: &[&str] = &["control", "orchestrator"];

/// A name or a size that can't be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LimitError {
    /// The name has no characters.
    #[error("a name can't be empty")]
    EmptyName,
    /// More than [`NAME_MAX`] characters.
    #[error("the name {0:?}... is too long: a name has at most {NAME_MAX} characters")]
    LongName(String),
    /// A slash: names become file names of sockets.
    #[error(
        "the name {0:?} has a slash; a name is not a path: use letters, digits, '.', '_' and '-'"
    )]
    SlashInName(String),
    /// A leading dot or dash would read as a hidden file or as an option.
    #[error("the name {0:?} starts with {1:?}: start it with a letter, a digit or '_'")]
    LeadingCharacter(String, char),
    /// Anything else outside `[A-Za-z0-9._-]`.
    #[error(
        "the name {0:?} has the character {1:?}: use letters (a-z, A-Z), digits, '.', '_' and '-'"
    )]
    CharacterInName(String, char),
    /// See [`RESERVED`].
    #[error("the name {0:?} is taken by the backend's own socket: choose another one")]
    ReservedName(String),
    /// A domain's name that can't be one.
    #[error("a domain's name has 1 to {DOMAIN_NAME_MAX} bytes and no control characters")]
    DomainName,
    /// A reason that can't be one.
    #[error("a reason has at most {REASON_MAX} bytes and no control characters")]
    Reason,
    /// Zero bytes.
    #[error("a vDisk's size can't be zero: give at least 4K")]
    ZeroSize,
    /// Below [`SIZE_MIN`].
    #[error("{0} bytes are too small for a vDisk: give at least 4K (4096 bytes)")]
    SmallSize(u64),
    /// Above [`SIZE_MAX`].
    #[error("{0} bytes are too large for a vDisk: the largest is 64T ({SIZE_MAX} bytes)")]
    LargeSize(u64),
    /// Not a multiple of [`SECTOR`].
    #[error("{0} bytes are not a multiple of 512; the next sizes that are: {down} and {up} bytes",
        down = .0 / SECTOR * SECTOR, up = .0.div_ceil(SECTOR) * SECTOR)]
    OddSize(u64),
}

/// Whether a vDisk may be called `name`: as a snapshot, but for [`RESERVED`].
pub fn check_name(name: &str) -> Result<(), LimitError> {
    check_snapshot_name(name)?;
    match RESERVED.contains(&name) {
        true => Err(LimitError::ReservedName(name.to_owned())),
        false => Ok(()),
    }
}

/// Whether a snapshot, or somebody who holds it, may be called `name`: 1 to 64 characters of `[A-Za-z0-9._-]`, the first
/// neither dot nor dash.
pub fn check_snapshot_name(name: &str) -> Result<(), LimitError> {
    let excerpt = || name.chars().take(NAME_MAX).collect::<String>();
    if name.is_empty() {
        return Err(LimitError::EmptyName);
    }
    if name.contains('/') {
        return Err(LimitError::SlashInName(excerpt()));
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if let Some(odd) = name.chars().find(|c| !allowed(*c)) {
        return Err(LimitError::CharacterInName(excerpt(), odd));
    }
    if let Some(first @ ('.' | '-')) = name.chars().next() {
        return Err(LimitError::LeadingCharacter(excerpt(), first));
    }
    if name.len() > NAME_MAX {
        return Err(LimitError::LongName(excerpt()));
    }
    Ok(())
}

/// Whether this can be said of a domain.
pub fn check_domain(name: &str, reason: Option<&str>) -> Result<(), LimitError> {
    let odd = |text: &str| text.chars().any(char::is_control);
    if name.is_empty() || name.len() > DOMAIN_NAME_MAX || odd(name) {
        return Err(LimitError::DomainName);
    }
    match reason {
        Some(reason) if reason.len() > REASON_MAX || odd(reason) => Err(LimitError::Reason),
        _ => Ok(()),
    }
}

/// Whether a vDisk may have `size` bytes: a multiple of 512 from 4 KiB to 64 TiB.
pub fn check_size(size: u64) -> Result<(), LimitError> {
    if size == 0 {
        return Err(LimitError::ZeroSize);
    }
    if size < SIZE_MIN {
        return Err(LimitError::SmallSize(size));
    }
    if size > SIZE_MAX {
        return Err(LimitError::LargeSize(size));
    }
    if !size.is_multiple_of(SECTOR) {
        return Err(LimitError::OddSize(size));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for good in ["a", "web-1", "A.b_c", "0", "_x", &"n".repeat(64)] {
            assert_eq!(check_name(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            ".",
            "..",
            ".hidden",
            "-x",
            "a/b",
            "/",
            "a b",
            "naïve",
            "a\0",
            "a\n",
            "control",
            "orchestrator",
            &"n".repeat(65),
        ] {
            let error = check_name(bad).unwrap_err();
            assert!(
                !error.to_string().contains('\0') && !error.to_string().contains('\n'),
                "{error}"
            );
        }
        // A snapshot has no socket.
        assert_eq!(check_snapshot_name("control"), Ok(()));
        assert_eq!(
            check_snapshot_name("x/y").unwrap_err(),
            LimitError::SlashInName("x/y".into())
        );
        assert_eq!(
            check_name("x/y").unwrap_err(),
            LimitError::SlashInName("x/y".into())
        );
        assert!(
            check_name(&"/".repeat(1 << 20))
                .unwrap_err()
                .to_string()
                .len()
                < 300
        );
    }

    #[test]
    fn domains() {
        let long = "n".repeat(DOMAIN_NAME_MAX);
        assert_eq!(check_domain(&long, Some("crashed")), Ok(()));
        assert_eq!(check_domain("web server", None), Ok(()));
        for bad in ["", "a\nb", &format!("{long}n")] {
            assert_eq!(check_domain(bad, None), Err(LimitError::DomainName));
        }
        for bad in ["a\nb", &"r".repeat(REASON_MAX + 1)] {
            assert_eq!(check_domain("web", Some(bad)), Err(LimitError::Reason));
        }
    }

    #[test]
    fn sizes() {
        for good in [4096, 4608, 10 << 30, SIZE_MAX] {
            assert_eq!(check_size(good), Ok(()));
        }
        assert_eq!(check_size(0), Err(LimitError::ZeroSize));
        assert_eq!(check_size(512), Err(LimitError::SmallSize(512)));
        assert_eq!(check_size(5000), Err(LimitError::OddSize(5000)));
        assert_eq!(
            check_size(SIZE_MAX + 512),
            Err(LimitError::LargeSize(SIZE_MAX + 512))
        );
        assert_eq!(check_size(u64::MAX), Err(LimitError::LargeSize(u64::MAX)));
        assert!(
            check_size(5000)
                .unwrap_err()
                .to_string()
                .contains("4608 and 5120")
        );
    }
}
