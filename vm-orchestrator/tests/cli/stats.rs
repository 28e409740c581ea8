//! `firn store stats`.

use super::{Host, image};

#[test]
fn figures_of_the_whole_and_of_some() {
    let host = Host::new();
    let nothing = host.ok("store stats");
    assert!(nothing.starts_with("TEMPERATURE"), "{nothing}");
    host.ok("vdisk create empty 64T");
    image(&host.path("web.raw"), 20 << 20);
    host.ok("vdisk import web.raw web");
    host.store.as_ref().unwrap().flush().unwrap();
    host.ok("snapshot create monday web");
    let text = host.ok("store stats");
    let line = |begins: &str| {
        let found = text.lines().find(|l| l.starts_with(begins));
        found.unwrap_or_else(|| panic!("no {begins}: {text}"))
    };
    assert!(line("web ").ends_with("  1.00") && line("empty ").ends_with("  1.00"));
    assert!(line("write amplification ").contains("x of what guests wrote"));
    assert!(line("together ").contains("MiB") && !text.contains("@monday"));
    assert!(host.ok("store stats --layers").contains("  web@monday  "));

    let all = host.json("store stats");
    let vdisks = all["vdisks"].as_array().unwrap();
    assert_eq!(vdisks.len(), 2);
    let web = vdisks.iter().find(|v| v["name"] == "web").unwrap();
    assert_eq!(web["fragmentation_index"], 1.0);
    assert_eq!(
        (&web["snapshots"], &web["live"]["data_blocks"]),
        (&1.into(), &0.into())
    );
    let blocks = &web["in_snapshots"]["data_blocks"];
    assert_eq!(blocks, &web["fragmentation"]["blocks"]);
    assert!(blocks.as_u64().unwrap() >= 512);
    let layers = all["layers"].as_array().unwrap();
    assert_eq!(layers.len(), 3);
    assert_eq!(layers[1]["snapshot"], "monday");
    let writes = &all["writes"];
    let requested = writes["requested_bytes"].as_u64().unwrap();
    let factor = writes["total_bytes"].as_f64().unwrap() / requested as f64;
    let told = all["write_amplification"]["of_requested"].as_f64().unwrap();
    assert!((factor - told).abs() < 1e-9 && factor > 1.0);
    assert_eq!(all["space"].as_array().unwrap().len(), 6);

    let some = host.json("store stats web web");
    assert_eq!(some["vdisks"].as_array().unwrap().len(), 1);
    assert_eq!(some["layers"].as_array().unwrap().len(), 2);
    host.fails("store stats nobody", 3, "nobody");
    host.fails("store stats a/b", 2, "a/b");
}
