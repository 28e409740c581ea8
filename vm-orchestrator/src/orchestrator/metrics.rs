//! Numbers for Prometheus.

use super::Orchestrator;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use std::time::Duration;

/// All of them.
pub(super) struct Metrics {
    registry: Registry,
    libvirt_up: Gauge,
    backend_up: Gauge,
    tasks: Gauge,
    checkpoints: Histogram,
    checkpoints_failed: Counter,
    quiesced: Histogram,
}

/// Upper bounds in seconds, around the 50 ms that a pause should not exceed.
const BOUNDS: [f64; 10] = [0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0];

impl Metrics {
    pub fn new() -> Metrics {
        let mut registry = Registry::with_prefix("firn_orchestrator");
        let (libvirt_up, backend_up, tasks) =
            (Gauge::default(), Gauge::default(), Gauge::default());
        let checkpoints = Histogram::new(BOUNDS);
        let checkpoints_failed = Counter::default();
        let quiesced = Histogram::new(BOUNDS);
        registry.register("libvirt_up", "Whether libvirt answers", libvirt_up.clone());
        registry.register(
            "backend_up",
            "Whether the backend answers",
            backend_up.clone(),
        );
        registry.register(
            "tasks",
            "Work of several steps that is under way, or waits",
            tasks.clone(),
        );
        registry.register_with_unit(
            "checkpoint_pause",
            "From when a paused domain was noticed until it ran again",
            Unit::Seconds,
            checkpoints.clone(),
        );
        registry.register(
            "checkpoints_failed",
            "Snapshots by virsh that could not be taken",
            checkpoints_failed.clone(),
        );
        registry.register_with_unit(
            "quiesced",
            "For how long filesystems were frozen",
            Unit::Seconds,
            quiesced.clone(),
        );
        Metrics {
            registry,
            libvirt_up,
            backend_up,
            tasks,
            checkpoints,
            checkpoints_failed,
            quiesced,
        }
    }

    pub fn checkpoint(&self, paused: Duration) {
        self.checkpoints.observe(paused.as_secs_f64());
    }

    pub fn checkpoint_failed(&self) {
        self.checkpoints_failed.inc();
    }

    pub fn quiesced(&self, frozen: Duration) {
        self.quiesced.observe(frozen.as_secs_f64());
    }
}

impl Orchestrator {
    /// What `GET /metrics` says.
    pub(super) fn metrics_text(&self) -> String {
        let (libvirt, backend) = self.links.both();
        self.metrics.libvirt_up.set(libvirt.up.into());
        self.metrics.backend_up.set(backend.up.into());
        let tasks = self.journal.all().map_or(0, |all| all.len());
        self.metrics
            .tasks
            .set(i64::try_from(tasks).unwrap_or(i64::MAX));
        let mut text = String::new();
        // Writing to a string can't fail.
        let _ = encode(&mut text, &self.metrics.registry);
        text
    }
}
