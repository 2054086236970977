//! `tercet convert`: a checkpoint as one packed file.

use tercet_host::convert::{Kernels, write_tercet};
use tercet_host::package::{Package, Source};

use crate::args::{ConvertArgs, Kind};
use crate::engine::Progress;
use crate::failure::Failure;

/// Runs the command.
///
/// # Errors
///
/// [`Failure`] of the source or the destination.
pub fn convert(args: &ConvertArgs) -> Result<(), Failure> {
    let package = Package::open(&Source::Path(args.source.clone()))?;
    let progress = Progress::new("converting", args.quiet);
    match args.to {
        Kind::Tercet => {
            let with = if args.no_kernels { Kernels::LeaveOut } else { Kernels::Include };
            write_tercet(
                &package,
                &args.destination,
                args.layout.into(),
                with,
                &mut |done, total| progress.show(done, total),
            )?;
        }
    }
    progress.done();
    Ok(())
}
