//! What belongs to a connection and not to one session.

use super::*;

#[test]
fn pairing() {
    golden(
        PairRequest {
            secret: *b"0123456789abcdef",
            name: "laptop".into(),
        },
        "30 31 32 33 34 35 36 37 38 39 61 62 63 64 65 66  # secret, without a length
         06 6c 61 70 74 6f 70                             # name: laptop",
    );
    golden(
        PairReply {
            module: ModuleName(b"m".to_vec()),
            name: "nas".into(),
            is_tree: true,
        },
        "01 6d         # module: m
         03 6e 61 73   # name: nas
         01            # is_tree",
    );
}

#[test]
fn pulling() {
    golden(
        PullRequest {
            tree: ModuleName(b"www".to_vec()),
        },
        "03 77 77 77   # tree: www",
    );
}

#[test]
fn notes() {
    golden(
        Note::Ended {
            session: 300,
            code: 6,
            text: "busy".into(),
        },
        "00               # Ended
         fb 2c 01         #   session: 300
         06               #   code: Busy
         04 62 75 73 79   #   text",
    );
    golden(
        Note::Window {
            session: 7,
            through: 1 << 20,
        },
        "01               # Window
         07               #   session
         fc 00 00 10 00   #   through: 1,048,576",
    );
}

/// The prefix of a frame is big endian, unlike the numbers inside messages.
#[test]
fn frame_prefix() {
    let frame = codec::encode_frame(&ToReceiver::Flush { number: 7 }).unwrap();
    assert_eq!(
        frame,
        dump::bytes("00 00 00 02 # length\n03 07 # ToReceiver::Flush")
    );
}
