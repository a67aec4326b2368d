//! The capabilities that a program's file carries.

use std::io;
use std::path::Path;

use crate::privilege::capability::names;

/// What the file of a program gives to whoever runs it (capabilities(7), "File capabilities").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileCapabilities {
    pub(super) permitted: u64,
    pub(super) inheritable: u64,
    /// Whether what is permitted is in force at once
    pub(super) effective: bool,
}

impl FileCapabilities {
    /// Of a file, links followed; `None` where it has none.
    ///
    /// # Errors
    /// When the file cannot be looked at, or the attribute has a form that is not known.
    pub(super) fn of(path: &Path) -> io::Result<Option<Self>> {
        use rustix::io::Errno;
        // The largest form has 24 bytes.
        let mut value = [0; 64];
        match rustix::fs::getxattr(path, "security.capability", &mut value[..]) {
            Ok(length) => match Self::parse(&value[..length]) {
                Some(capabilities) => Ok(Some(capabilities)),
                None => Err(io::Error::other(
                    "its security.capability has an unknown form",
                )),
            },
            Err(Errno::NODATA | Errno::NOTSUP) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    /// `struct vfs_cap_data` of capability.h, revisions 1 to 3, little-endian.
    fn parse(value: &[u8]) -> Option<Self> {
        const REVISION: u32 = 0xff00_0000;
        const EFFECTIVE: u32 = 1;
        let word = |at: usize| {
            let bytes = value.get(4 * at..4 * at + 4)?;
            Some(u32::from_le_bytes(bytes.try_into().ok()?))
        };
        let magic = word(0)?;
        let pairs = match (magic & REVISION, value.len()) {
            (0x0100_0000, 12) => 1,
            // Revision 3 has the root user of a namespace at its end.
            (0x0200_0000, 20) | (0x0300_0000, 24) => 2,
            _ => return None,
        };
        let (mut permitted, mut inheritable) = (0, 0);
        for pair in 0..pairs {
            permitted |= u64::from(word(1 + 2 * pair)?) << (32 * pair);
            inheritable |= u64::from(word(2 + 2 * pair)?) << (32 * pair);
        }
        Some(Self {
            permitted,
            inheritable,
            effective: magic & EFFECTIVE != 0,
        })
    }

    /// As setcap(8) writes it, such as `cap_net_bind_service+ep`.
    pub(super) fn written(&self) -> String {
        let flags = [
            (self.effective, 'e'),
            (self.inheritable != 0, 'i'),
            (self.permitted != 0, 'p'),
        ];
        let flags: String = flags
            .iter()
            .filter_map(|(set, flag)| set.then_some(*flag))
            .collect();
        format!("{}+{flags}", names(self.permitted | self.inheritable))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::privilege::Capability;

    const NET_BIND_SERVICE: u64 = Capability::NetBindService.bit() as u64;

    #[test]
    fn each_form_of_the_attribute_is_read() {
        let bind = |magic: u32, more: &[u32]| {
            let words = [&[magic, 1 << 10, 0][..], more].concat();
            let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
            FileCapabilities::parse(&bytes)
        };
        let expected = FileCapabilities {
            permitted: NET_BIND_SERVICE,
            inheritable: 0,
            effective: true,
        };
        assert_eq!(bind(0x0100_0001, &[]), Some(expected));
        assert_eq!(bind(0x0200_0001, &[0, 0]), Some(expected));
        assert_eq!(bind(0x0300_0001, &[0, 0, 1000]), Some(expected));
        let high = bind(0x0200_0000, &[1 << 8, 0]).unwrap();
        assert_eq!(high.permitted, NET_BIND_SERVICE | 1 << 40);
        assert_eq!(
            high.written(),
            "cap_net_bind_service, cap_checkpoint_restore+p"
        );
        assert_eq!(expected.written(), "cap_net_bind_service+ep");
    }

    #[test]
    fn other_forms_are_refused() {
        for bytes in [
            &[][..],
            &[1, 0, 0, 2],
            &[0; 20],
            &[0xff; 24],
            &[1, 0, 0, 1, 0, 0, 0, 0],
        ] {
            assert_eq!(FileCapabilities::parse(bytes), None, "{bytes:?}");
        }
    }
}
