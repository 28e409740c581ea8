//! `firn doctor`.

use crate::args::DoctorArgs;
use crate::doctor::{Account, Finding, Patient, Verdict, examine};
use crate::failure::Failure;
use crate::settings::Settings;
use control_api::types::{Health, VDisk};
use control_api::{Client, ClientError};
use serde::Serialize;

#[derive(Serialize)]
struct Report {
    findings: Vec<Finding>,
}

pub(super) async fn run(settings: &Settings, args: &DoctorArgs) -> Result<(), Failure> {
    let (backend, vdisks) = match ask(settings).await {
        Ok((health, vdisks)) => (Ok(health), vdisks),
        Err(error) => (
            Err((error.to_string(), error.hint().unwrap_or_default())),
            Vec::new(),
        ),
    };
    let served = backend
        .as_ref()
        .ok()
        .map(|health| health.store.clone().into());
    let patient = Patient {
        run: settings.run.clone(),
        vdisks,
        store: args.store.clone().or(served),
        qemu: (args.qemu_user.clone(), Account::of(&args.qemu_user)),
        backend,
    };
    let report = Report {
        findings: examine(&patient),
    };
    let broken = report
        .findings
        .iter()
        .filter(|finding| finding.verdict == Verdict::Broken)
        .count();
    settings.show(&report, |report| text(&report.findings))?;
    match broken {
        0 => Ok(()),
        1 => Err(Failure::failed("1 check found something broken")),
        count => Err(Failure::failed(format!(
            "{count} checks found something broken"
        ))),
    }
}

async fn ask(settings: &Settings) -> Result<(Health, Vec<VDisk>), ClientError> {
    let mut client = Client::connect(&settings.run).await?;
    Ok((client.health().await?, client.vdisks().await?))
}

fn text(findings: &[Finding]) -> String {
    let mut text = String::new();
    for finding in findings {
        let verdict = match finding.verdict {
            Verdict::Ok => "ok     ",
            Verdict::Note => "note   ",
            Verdict::Warning => "WARNING",
            Verdict::Broken => "BROKEN ",
        };
        text += &format!("{verdict}  {}: {}\n", finding.check, finding.found);
        if let Some(cure) = &finding.cure {
            text += &format!("         -> {cure}\n");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden() {
        let finding = |verdict, cure: Option<&str>| Finding {
            check: "KVM",
            verdict,
            found: "something".into(),
            cure: cure.map(str::to_owned),
        };
        assert_eq!(
            text(&[
                finding(Verdict::Ok, None),
                finding(Verdict::Broken, Some("do this"))
            ]),
            "ok       KVM: something\nBROKEN   KVM: something\n         -> do this\n"
        );
    }
}
