//! The page at `/`: says what this is and links to what there is. Pure.

/// The page as HTML. `prefix` is what all paths start with, and `telemetry_path` follows it; they
/// hold no character that HTML would need escaped.
pub fn page(prefix: &str, telemetry_path: &str) -> String {
    let version = env!("CARGO_PKG_VERSION");
    format!(
        "<!DOCTYPE html>\n\
         <html lang=\"en\">\n\
         <head><meta charset=\"utf-8\"><title>api-key-exporter</title></head>\n\
         <body>\n\
         <h1>api-key-exporter</h1>\n\
         <p>Prometheus exporter that knows when your API keys expire. Version {version}.</p>\n\
         <ul>\n\
         <li><a href=\"{prefix}{telemetry_path}\">Metrics</a></li>\n\
         <li><a href=\"{prefix}/-/healthy\">Health</a></li>\n\
         <li><a href=\"{prefix}/-/ready\">Readiness</a></li>\n\
         </ul>\n\
         </body>\n\
         </html>\n"
    )
}
