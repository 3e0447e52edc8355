//! Samples of what a helper prints, and what the checker makes of them when they are changed.

use opencode_sessions::internals::wire::{
    Checker, Content, ListingContent, LookUp, LookUpContent, Violation,
};
use opencode_sessions::session::SessionId;

use crate::support;

/// An output with every field, and how it is checked.
pub(crate) struct Sample {
    pub(crate) name: &'static str,
    /// Nothing for a listing.
    pub(crate) asked: Option<(LookUp, &'static [&'static str])>,
}

pub(crate) const SAMPLES: [Sample; 4] = [
    Sample {
        name: "listing",
        asked: None,
    },
    Sample {
        name: "error",
        asked: None,
    },
    Sample {
        name: "get",
        asked: Some((LookUp::Get, &["ses_full", "ses_none", "ses_untitled"])),
    },
    Sample {
        name: "roots",
        asked: Some((
            LookUp::Roots,
            &[
                "ses_child",
                "ses_root",
                "ses_none",
                "ses_circle",
                "ses_orphan",
            ],
        )),
    },
];

impl Sample {
    /// What is wrong with this output.
    pub(crate) fn check(&self, output: &[u8]) -> Option<Violation> {
        fn violation<C: Content>(content: C, output: &[u8]) -> Option<Violation> {
            let mut checker = Checker::of(content);
            let pushed = checker.push(output);
            pushed.and_then(|()| checker.finish().map(|_| ())).err()
        }
        match self.asked {
            None => violation(ListingContent::default(), output),
            Some((what, ids)) => {
                let ids: Vec<_> = ids.iter().map(|id| SessionId::new(*id).unwrap()).collect();
                violation(LookUpContent::new(what, &ids), output)
            }
        }
    }

    #[track_caller]
    pub(crate) fn refuses(&self, output: &[u8], changed: &str) -> Violation {
        let violation = self.check(output);
        violation.unwrap_or_else(|| panic!("accepted in {}: {changed}", self.name))
    }
}

pub(crate) fn golden(name: &str) -> String {
    let path = support::fixtures().join(format!("golden/wire-1-{name}.jsonl"));
    std::fs::read_to_string(path).unwrap()
}
