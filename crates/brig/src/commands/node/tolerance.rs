//! What a change of the number of managers does to the swarm, said before it is made.

use brig_api::swarm::Node;

use crate::client::Call;
use crate::context::Context;
use crate::error::Result;
use crate::output::warn;

/// How many managers may be lost while the others go on.
const fn spare(managers: usize) -> usize {
    managers.saturating_sub(1) / 2
}

/// The warning before a change, if it is worth one.
pub(crate) fn warning(before: usize, after: usize) -> Option<String> {
    if before == after || after < 1 {
        return None;
    }
    let go_on = match spare(after) {
        0 => "it goes on only while all of them are there".to_owned(),
        1 => "it goes on when 1 of them is lost".to_owned(),
        n => format!("it goes on when {n} of them are lost"),
    };
    let mut text = format!("The swarm will have {after} managers: {go_on}.");
    if after == 1 {
        "The swarm will have 1 manager: it stands still while that one is away."
            .clone_into(&mut text);
    } else if after.is_multiple_of(2) {
        text.push_str(&format!(
            " That is no more than with {}; an odd number of managers is better.",
            after - 1
        ));
    }
    Some(text)
}

/// Says on stderr what giving a node another role does: this one.
pub(super) async fn tell(context: &Context, role: &str) -> Result<()> {
    let before = managers(context).await?;
    let after = if role == "manager" { before + 1 } else { before.saturating_sub(1) };
    if let Some(text) = warning(before, after) {
        warn(&text);
    }
    Ok(())
}

/// How many managers there are, or are to be.
pub(crate) async fn managers(context: &Context) -> Result<usize> {
    let nodes: Vec<Node> = context.client.json(Call::get("/nodes")).await?;
    Ok(nodes.iter().filter(|node| node.spec.role == "manager").count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fault_tolerance_is_named() {
        let told = |before, after| warning(before, after).unwrap();
        assert_eq!(
            told(1, 2),
            "The swarm will have 2 managers: it goes on only while all of them are there. That is no more than with 1; an odd number of managers is better."
        );
        assert_eq!(
            told(2, 3),
            "The swarm will have 3 managers: it goes on when 1 of them is lost."
        );
        assert!(told(3, 4).contains("1 of them is lost. That is no more than with 3"));
        assert!(told(4, 5).contains("2 of them are lost."));
        assert!(told(2, 1).contains("1 manager: it stands still"));
        assert_eq!(warning(3, 3), None);
    }
}
