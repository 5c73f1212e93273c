//! The other side of a survey: a receiver that is asked, or a directory here that is read.

use super::owners::Known;
use crate::daemon::keeping::Keeping;
use crate::daemon::receiver::{Wanted, disk_rows, own_attributes, own_carried};
use crate::daemon::sender::{Allowance, ReconcileError, open_link, question, receive_listing};
use crate::daemon::{DaemonError, ModuleOptions, SenderOptions, Stop};
use crate::engine::owners::OwnerRules;
use crate::fs::Directory;
use crate::net::SenderLink;
use driftless_protocol::message::{Open, Purpose, Row, ToReceiver, ToSender};
use driftless_protocol::{Attributes, Carried, CloseCode, RelPath, XattrClasses};
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

/// Directories asked for ahead of the one that is compared.
const ASK_AHEAD: usize = 16;

/// Where to look.
#[derive(Debug, Clone, Copy)]
pub enum FarEnd<'a> {
    /// At the target of the options, over the network.
    Target(&'a tokio::runtime::Handle),
    /// At a directory here, which may be missing, taken as this module.
    Directory(&'a ModuleOptions),
}

/// What is asked of one directory.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Question {
    path: RelPath,
    xattrs: XattrClasses,
    contents: bool,
}

type Answer = Result<Vec<Row>, String>;

/// The other side.
pub(super) struct Far {
    pub(super) side: Side,
    carried: Carried,
    root: Option<Attributes>,
    grants: Grants,
    backs_up_beside: bool,
    pub(super) owners: Known,
    /// Questions that were sent, in order, and answers that came before somebody waited for them.
    asked: VecDeque<Question>,
    known: HashSet<Question>,
    answers: HashMap<Question, Answer>,
}

/// What this end may do there, beside looking.
#[derive(Debug, Clone, Copy)]
pub(super) struct Grants {
    /// Remove entries.
    pub(super) delete: bool,
    /// Give files set-user-ID and set-group-ID bits.
    pub(super) set_id: bool,
}

impl Grants {
    const ALL: Grants = Grants {
        delete: true,
        set_id: true,
    };
}

pub(super) enum Side {
    Receiver(Box<SenderLink>),
    Directory(Arc<Directory>, Keeping),
    Missing,
}

impl Far {
    /// Connects, or opens the directory.
    pub(super) fn open(
        options: &SenderOptions,
        source: &Directory,
        end: FarEnd<'_>,
    ) -> Result<Far, DaemonError> {
        let can = own_carried(source);
        let can = Carried {
            xattrs: source.holds_xattrs(can.xattrs),
            leaves_root: options.leaves_root,
            ..can
        };
        match end {
            FarEnd::Target(runtime) => Self::connect(options, can, runtime),
            FarEnd::Directory(module) => Self::directory(options, module, can),
        }
    }

    fn new(side: Side, carried: Carried, root: Option<Attributes>, owners: &OwnerRules) -> Far {
        Far {
            side,
            carried,
            root,
            grants: Grants::ALL,
            backs_up_beside: false,
            owners: Known::new(owners),
            asked: VecDeque::new(),
            known: HashSet::new(),
            answers: HashMap::new(),
        }
    }

    fn connect(
        options: &SenderOptions,
        can: Carried,
        runtime: &tokio::runtime::Handle,
    ) -> Result<Far, DaemonError> {
        let open = Open {
            carried: can,
            ..question(options, Purpose::Survey)
        };
        let (link, opened) =
            open_link(options, runtime, Vec::new(), open).map_err(|error| DaemonError::failed(error.text))?;
        match link.incoming().recv() {
            Ok(ToSender::SurveyRoot {
                root,
                may_set_id,
                backs_up_beside,
            }) => Ok(Far {
                grants: Grants {
                    delete: opened.may_delete,
                    set_id: may_set_id,
                },
                backs_up_beside,
                ..Self::new(Side::Receiver(link), opened.carried, root, &options.owners)
            }),
            Ok(_) => Err(DaemonError::failed(format!(
                "{}: the receiver broke the protocol when it was asked for its root",
                options.target
            ))),
            Err(_) => Err(gone(&link)),
        }
    }

    fn directory(options: &SenderOptions, module: &ModuleOptions, can: Carried) -> Result<Far, DaemonError> {
        let failed = |error: &dyn std::fmt::Display| DaemonError::failed(error.to_string());
        let takes = Carried {
            owner: true,
            devices: module.devices,
            xattrs: module.xattrs,
            leaves_root: false,
        };
        if !module.path.exists() {
            return Ok(Self::new(Side::Missing, can.common(takes), None, &options.owners));
        }
        let root = Directory::open_root(&module.path).map_err(|error| failed(&error))?;
        let root = root.with_view(module.view());
        let carried = can.common(own_carried(&root)).common(Carried {
            xattrs: root.holds_xattrs(takes.xattrs),
            ..takes
        });
        let attributes = own_attributes(&root, carried.xattrs).map_err(|error| failed(&error))?;
        let side = Side::Directory(Arc::new(root), module.keeping.clone());
        Ok(Far {
            backs_up_beside: module.keeping.leaves_backups_beside(),
            ..Self::new(side, carried, Some(attributes), &options.owners)
        })
    }

    /// What both sides can carry.
    pub(super) fn carried(&self) -> Carried {
        self.carried
    }

    /// What this end may do there.
    pub(super) fn grants(&self) -> Grants {
        self.grants
    }

    /// Whether a backup is left beside each file that goes.
    pub(super) fn backs_up_beside(&self) -> bool {
        self.backs_up_beside
    }

    /// Whether there is anything at all.
    pub(super) fn is_there(&self) -> bool {
        self.root.is_some()
    }

    /// The attributes of the root, if there is one.
    pub(super) fn root(&self) -> Option<Attributes> {
        self.root
    }

    /// What is in a directory, or why it cannot tell.
    pub(super) fn rows(
        &mut self,
        path: &RelPath,
        xattrs: XattrClasses,
        contents: bool,
    ) -> Result<Answer, DaemonError> {
        let question = Question {
            path: path.clone(),
            xattrs,
            contents,
        };
        match &self.side {
            Side::Missing => return Ok(Ok(Vec::new())),
            Side::Directory(root, keeping) => {
                return Ok(disk_rows(root, path, Wanted { xattrs, contents }, keeping));
            }
            Side::Receiver(_) => {}
        }
        self.ask(question.clone())?;
        loop {
            if let Some(answer) = self.answers.remove(&question) {
                self.known.remove(&question);
                return Ok(answer);
            }
            self.take_answer()?;
        }
    }

    /// Asks for directories whose turn comes soon, so that nobody waits a round trip for each.
    pub(super) fn ask_ahead<'p>(
        &mut self,
        paths: impl Iterator<Item = &'p RelPath>,
        contents: bool,
    ) -> Result<(), DaemonError> {
        if !matches!(self.side, Side::Receiver(_)) {
            return Ok(());
        }
        let xattrs = self.carried.xattrs;
        for path in paths.take(ASK_AHEAD) {
            if self.asked.len() >= ASK_AHEAD {
                break;
            }
            self.ask(Question {
                path: path.clone(),
                xattrs,
                contents,
            })?;
        }
        Ok(())
    }

    /// Ends the connection.
    pub(super) fn close(self) {
        if let Side::Receiver(link) = &self.side {
            link.close(CloseCode::Done, "");
        }
    }

    fn ask(&mut self, question: Question) -> Result<(), DaemonError> {
        let Side::Receiver(link) = &self.side else {
            return Ok(());
        };
        if !self.known.insert(question.clone()) {
            return Ok(());
        }
        let message = ToReceiver::Survey {
            path: question.path.clone(),
            xattrs: question.xattrs,
            contents: question.contents,
        };
        link.control().send(message).map_err(|_| gone(link))?;
        self.asked.push_back(question);
        Ok(())
    }

    /// Waits for the answers to all that was asked.
    pub(super) fn take_all_answers(&mut self) -> Result<(), DaemonError> {
        while !self.asked.is_empty() {
            self.take_answer()?;
        }
        Ok(())
    }

    fn take_answer(&mut self) -> Result<(), DaemonError> {
        let Side::Receiver(link) = &self.side else {
            return Ok(());
        };
        let answer = match receive_listing(link, &Stop::default(), &mut Allowance::of_directory()) {
            Ok(rows) => Ok(rows),
            Err(ReconcileError::Unlisted(text)) => Err(text),
            Err(ReconcileError::Ended) => return Err(gone(link)),
            Err(error) => return Err(DaemonError::failed(format!("cannot look at the target: {error}"))),
        };
        let Some(question) = self.asked.pop_front() else {
            return Err(DaemonError::failed("the receiver answered what nobody asked"));
        };
        self.answers.insert(question, answer);
        Ok(())
    }
}

pub(super) fn gone(link: &SenderLink) -> DaemonError {
    let why = link
        .ended()
        .map_or_else(|| "the connection ended".to_owned(), |end| end.to_string());
    DaemonError::failed(format!("cannot look at the target: {why}"))
}
