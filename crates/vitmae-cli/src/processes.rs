//! Work by several processes that an MPI launcher starts: `mpirun -n 4 vitmae pretrain …`.

use anyhow::Result;
use vitmae_layers::Param;
use vitmae_trainer::Team;

use crate::Global;
use crate::exit::Usage;

/// Variables by which launchers tell a process that it is one of several; those with a number of processes first.
const LAUNCHED: [&str; 3] = ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "PMIX_RANK"];

/// How long the others wait with a message of their own.
#[cfg(feature = "mpi")]
const LEADERS_TURN: std::time::Duration = std::time::Duration::from_secs(5);

/// Runs a command as one of the processes that were started together, or alone. All but the leader are quiet, and an error
/// in one ends them all, with its message.
pub fn together(global: &Global, command: impl FnOnce(&Global, Team) -> Result<u8>) -> Result<u8> {
    let launched = LAUNCHED.iter().any(|name| std::env::var_os(name).is_some());
    if !launched {
        return command(global, Team::default());
    }
    as_one_of_several(global, command)
}

#[cfg(feature = "mpi")]
fn as_one_of_several(
    global: &Global,
    command: impl FnOnce(&Global, Team) -> Result<u8>,
) -> Result<u8> {
    use vitmae_trainer::{Collective, MpiProcesses};

    use crate::exit;

    let processes = MpiProcesses::start()?;
    let (rank, size) = (processes.rank(), processes.size());
    let quiet = global.quiet || rank != 0;
    let done = command(&Global { quiet, ..global.clone() }, processes.team());
    let Err(error) = done else { return done };
    if size > 1 {
        // What goes wrong in all processes is told by the leader: the others are gone before their turn.
        if rank != 0 {
            std::thread::sleep(LEADERS_TURN);
        }
        let message = exit::message(&error);
        let message = message.strip_prefix("error: ").unwrap_or(&message);
        errln!("error: process {rank} of {size}: {message}");
        processes.abort(exit::code(&error).into());
    }
    Err(error)
}

#[cfg(not(feature = "mpi"))]
fn as_one_of_several(
    global: &Global,
    command: impl FnOnce(&Global, Team) -> Result<u8>,
) -> Result<u8> {
    let number = |name: &&str| std::env::var(name).ok()?.parse::<usize>().ok();
    match LAUNCHED[..2].iter().find_map(number) {
        Some(size) if size > 1 => {
            let message = format!(
                "this is one of {size} processes, but this build cannot work with several\nhelp: build it with \
                 `--features mpi`, or start one process"
            );
            Err(Usage(message).into())
        }
        _ => command(global, Team::default()),
    }
}

/// Checks that all processes judge the same model, on the same images, in the same way: `settings` tells of the last two.
pub fn check_same(
    team: &Team,
    parameters: &[&Param],
    settings: impl FnOnce() -> String,
) -> Result<()> {
    team.same_weights(parameters.iter().copied())?;
    Ok(team.same("settings or images", || Ok(settings()))?)
}

/// Checks the original's `--world-size` against the processes that there are.
pub fn check_world_size(asked: Option<usize>, team: &Team) -> Result<()> {
    match asked {
        Some(asked) if asked > 1 && asked != team.size() => {
            let message = format!(
                "`--world-size` is {asked}, but {} is running\nhelp: `mpirun -n {asked} vitmae …` starts several, in a \
                 build with `--features mpi`",
                team.size()
            );
            Err(Usage(message).into())
        }
        _ => Ok(()),
    }
}
