//! Scripts of policies that are to be applied, tried on rows of the types that they read.

use super::super::Api;
use crate::registry::{Declared, Document, Fault, Policy, Snapshot, chains_of};

/// Tries the script steps of every policy among documents that would say something new. What is wrong
/// with the documents otherwise is told by who applies them.
///
/// # Errors
/// A fault for each policy that must not act.
pub(in crate::http) async fn trials(api: &Api, documents: &[Document]) -> Result<(), Vec<Fault>> {
    let has_script = |document: &&Document| match &document.declared {
        Declared::Policy(_, file) => file.processing.iter().any(|step| step.script.is_some()),
        _ => false,
    };
    let with_scripts: Vec<&Document> = documents.iter().filter(has_script).collect();
    if with_scripts.is_empty() {
        return Ok(());
    }
    let (registry, all) = (api.registry.clone(), documents.to_vec());
    let Ok(Ok((before, after))) = api.pool.run(move || registry.preview(all)).await else {
        return Ok(());
    };
    let mut faults = Vec::new();
    for document in with_scripts {
        let Declared::Policy(name, _) = &document.declared else {
            continue;
        };
        let (was, is) = (before.policy(name), after.policy(name));
        let Some(policy) = is.filter(|is| was.is_none_or(|was| was.revision != is.revision)) else {
            continue;
        };
        if let Err(message) = trial(api, policy, &after).await {
            faults.push(Fault {
                place: document.place,
                object: Some(document.declared.object()),
                message,
            });
        }
    }
    match faults.is_empty() {
        true => Ok(()),
        false => Err(faults),
    }
}

async fn trial(api: &Api, policy: &Policy, snapshot: &Snapshot) -> Result<(), String> {
    for chain in chains_of(policy, snapshot) {
        for trial in chain.trials() {
            let rows = trial.rows();
            let rows: Vec<&str> = rows.iter().map(AsRef::as_ref).collect();
            let said = api.scripts.rows(&trial.program(), &rows).await;
            trial.passes(&said)?;
        }
    }
    Ok(())
}
