//! Listings of which only the differences are asked for.

use std::time::Instant;

use super::{FailureReason, ListRequest, Lister, Outcome};
use crate::wire::ErrorKind;

/// Lists, and asks for everything in the time that is left if the request was for differences
/// and the answer broke a rule or the helper did not know the request. Returns the reason, too.
pub(crate) fn list_or_ask_for_all(
    lister: &(dyn Lister + Send + Sync),
    request: &ListRequest,
) -> (Outcome, Option<String>) {
    let started = Instant::now();
    let outcome = lister.list(request);
    if request.base().is_none() {
        return (outcome, None);
    }
    let reason = match &outcome {
        Outcome::Failed(failure) if matches!(failure.reason, FailureReason::Wire(_)) => {
            failure.to_string()
        }
        Outcome::Refused(refusal) if refusal.error.kind == ErrorKind::Usage => refusal.to_string(),
        _ => return (outcome, None),
    };
    let left = request.deadline.saturating_sub(started.elapsed());
    let request = ListRequest {
        only_differences: false,
        deadline: left,
        ..request.clone()
    };
    (lister.list(&request), Some(reason))
}
