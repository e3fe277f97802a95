//! How a running server keeps up with its files: certificates every two seconds, and at SIGHUP those and the folder of keys
//! at once. (What other nodes do to the ring comes by the table, in `keys/reading.rs`.)

use std::time::Duration;

use tokio::{signal::unix::Signal, time::Instant};

use crate::{
    app::App,
    http::{Certificates, LOOK_PERIOD, Look},
};

/// How often a certificate that is about to expire is told of.
const REMIND: Duration = Duration::from_secs(12 * 60 * 60);

/// Runs until the server stops.
pub(super) async fn run(app: App, certificates: Option<Certificates>, mut hangups: Signal) {
    let mut reminded = Instant::now();
    while !app.is_stopping() {
        let asked = tokio::select! {
            Some(()) = hangups.recv() => true,
            () = tokio::time::sleep(LOOK_PERIOD) => false,
        };
        if asked {
            tracing::info!("SIGHUP: reading keys and certificates again");
            if let Err(error) = app.keys.take_in_files(&app.db, &app.ambient).await {
                tracing::warn!(%error, "cannot take keys into the ring; going on with what is known");
            }
        }
        let Some(certificates) = &certificates else { continue };
        let look = certificates.look(asked).await;
        if look == Look::Same && asked {
            tracing::info!("the certificate is the same as before");
        }
        if look == Look::New || reminded.elapsed() > REMIND {
            reminded = Instant::now();
            for warning in certificates.pair().warnings(&app.config.public_url, app.ambient.now()) {
                tracing::warn!("{warning}");
            }
        }
    }
}
