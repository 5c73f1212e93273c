//! The messages of a mirror connection.
//!
//! Tags are the positions of the variants: new ones are appended, none is reordered or reused. No type here contains
//! itself, so that no message can make a decoder recurse.
//!
//! A session, from the sender's side: [`Open`] is answered by [`Opened`]. Equal sums end it there. Otherwise the
//! sender asks for listings of the receiver's directories where sums differ, and sends [`Op`]s on op streams. A
//! file's content is inside its op when small; else the op is an offer, the receiver asks with [`ToSender::Need`]
//! when it is ready for the content (giving the signature of its basis if it has one), and ranges follow on bulk
//! streams until a [`SealOp`] closes the file. Every op ends in exactly one outcome: applied (told in bulk by
//! [`Progress`]), or failed ([`ToSender::Failed`]).

mod bulk;
mod control;
mod lists;
mod note;
mod op;
mod opening;
mod pairing;

pub use bulk::*;
pub use control::*;
pub use lists::*;
pub use note::*;
pub use op::{Content, Op, OpBody, OpMessage, SealOp};
pub use opening::*;
pub use pairing::*;
