//! Why an HTTP/2 connection is cut off.

/// What a client does with a connection that nobody has to put up with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Misuse {
    /// Requests that are reset before they are answered, by whichever side: rapid reset, and MadeYouReset
    Resets,
    /// Frames that nothing comes of: SETTINGS, PING, PRIORITY, WINDOW_UPDATE, unknown ones
    Frames,
    /// A request's head that did not arrive within `timeouts.request_head`
    SlowHead,
    /// A first frame other than SETTINGS (RFC 9113 section 3.4)
    Preface,
}

impl Misuse {
    /// The code that GOAWAY tells (RFC 9113 section 7).
    pub fn code(self) -> u32 {
        match self {
            Self::Preface => 1,
            Self::Resets | Self::Frames | Self::SlowHead => 11,
        }
    }

    /// What the client is told, and the access log.
    pub fn why(self) -> &'static str {
        match self {
            Self::Resets => "Too many requests were reset before they were answered.",
            Self::Frames => "Too many frames came that nothing comes of.",
            Self::SlowHead => "The request's head did not arrive within timeouts.request_head.",
            Self::Preface => "The first frame of the connection is not SETTINGS.",
        }
    }

    /// The frame that says so; `last` is the highest stream that was begun (RFC 9113 section 6.8).
    pub fn goaway(self, last: u32) -> Vec<u8> {
        let why = self.why().as_bytes();
        let mut frame = ((8 + why.len()) as u32).to_be_bytes()[1..].to_vec();
        frame.extend([7, 0, 0, 0, 0, 0]);
        frame.extend(last.to_be_bytes());
        frame.extend(self.code().to_be_bytes());
        frame.extend_from_slice(why);
        frame
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goaway_is_a_frame() {
        let frame = Misuse::Resets.goaway(0x0102_0305);
        assert_eq!(usize::from(frame[2]), frame.len() - 9);
        assert_eq!(frame[..2], [0, 0]);
        assert_eq!(frame[3..9], [7, 0, 0, 0, 0, 0]);
        assert_eq!(frame[9..17], [1, 2, 3, 5, 0, 0, 0, 11]);
    }
}
