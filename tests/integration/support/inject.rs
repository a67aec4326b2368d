//! System calls put into a running process: what somebody could do who has taken it over.
//!
//! A thread is stopped (ptrace(2)), made to execute the `syscall` instruction that it is waiting in once more with other
//! registers, and then goes on as if nothing had been. Only for root with CAP_SYS_PTRACE: lowport is undumpable.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use nix::errno::Errno;
use nix::libc::{SYS_getpid, c_long, user_regs_struct};
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use machine::{arguments, instruction, result, stack};

/// A stopped thread. Goes on when dropped.
pub(crate) struct Stopped {
    thread: Pid,
    /// As they were when it was stopped
    registers: user_regs_struct,
    instruction: u64,
    /// Where the next bytes are put
    free: u64,
}

/// What became of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Called {
    Done(i64),
    Failed(Errno),
    /// The whole process ended
    Killed(Signal),
}

impl Stopped {
    /// Stops the thread of this name.
    ///
    /// # Errors
    /// There is none, it may not be traced, or this machine's registers are not known here.
    pub(crate) fn thread(pid: u32, name: &str) -> io::Result<Self> {
        let tasks = fs::read_dir(format!("/proc/{pid}/task"))?.flatten();
        let named = |path: &std::path::Path| {
            fs::read_to_string(path.join("comm")).is_ok_and(|found| found.trim_end() == name)
        };
        let task = tasks.map(|task| task.path()).find(|path| named(path));
        let id = task.as_deref().and_then(|path| path.file_name()?.to_str());
        let id = id.and_then(|id| id.parse().ok());
        let thread = Pid::from_raw(id.ok_or(io::ErrorKind::NotFound)?);
        // It waits nearly all the time, and is let go when it does not.
        for _ in 0..100 {
            let mut stopped = Self::at_once(thread)?;
            if let Some(instruction) = waits_in(thread, &stopped.registers)? {
                stopped.instruction = instruction;
                return Ok(stopped);
            }
            drop(stopped);
            std::thread::sleep(Duration::from_millis(10));
        }
        Err(io::Error::other("it is never in a system call"))
    }

    /// Wherever it is.
    fn at_once(thread: Pid) -> io::Result<Self> {
        ptrace::seize(thread, Options::empty())?;
        let registers = ptrace::interrupt(thread)
            .and_then(|()| wait(thread))
            .and_then(|_| ptrace::getregs(thread));
        let registers = registers.inspect_err(|_| let_go(thread))?;
        Ok(Self {
            thread,
            instruction: 0,
            // Past what functions without a frame of their own keep below the stack's end.
            free: stack(&registers) - 4096,
            registers,
        })
    }

    /// Makes it do a system call.
    pub(crate) fn call<const N: usize>(&mut self, number: c_long, values: [u64; N]) -> Called {
        let mut all = [0; 6];
        all[..N].copy_from_slice(&values);
        let result = self.execute(number, all);
        // A call that ends the process returns as if nothing had been; the next one does not.
        match result.and_then(|result| self.execute(SYS_getpid, [0; 6]).map(|_| result)) {
            Ok(error @ -4095..=-1) => Called::Failed(Errno::from_raw(-error as i32)),
            Ok(done) => Called::Done(done),
            Err(signal) => Called::Killed(signal),
        }
    }

    /// What a system call returns; the signal that ended the process.
    fn execute(&self, number: c_long, values: [u64; 6]) -> Result<i64, Signal> {
        let mut registers = self.registers;
        arguments(&mut registers, self.instruction, number, values);
        ptrace::setregs(self.thread, registers).expect("it is stopped");
        // On its way in, and on its way out.
        for _ in 0..2 {
            ptrace::syscall(self.thread, None).expect("it is stopped");
            match wait(self.thread).expect("it is traced") {
                WaitStatus::Stopped(_, Signal::SIGTRAP) => {}
                WaitStatus::Signaled(_, signal, _) => return Err(signal),
                other => panic!("{other:?}"),
            }
        }
        let registers = ptrace::getregs(self.thread).expect("it is stopped");
        Ok(result(&registers))
    }

    /// Puts bytes where nothing is in use, and returns the address.
    pub(crate) fn put(&mut self, bytes: &[u8]) -> u64 {
        let memory = OpenOptions::new()
            .write(true)
            .open(format!("/proc/{}/mem", self.thread));
        let at = self.free;
        memory
            .and_then(|memory| memory.write_all_at(bytes, at))
            .expect("root may write");
        self.free += (bytes.len() as u64).next_multiple_of(16);
        at
    }
}

/// Where the instruction is that this thread is waiting in, or about to execute again; `None` if it is at work.
fn waits_in(thread: Pid, registers: &user_regs_struct) -> io::Result<Option<u64>> {
    let (code, next) = instruction(registers);
    let memory = fs::File::open(format!("/proc/{thread}/mem"))?;
    for at in [next - code.len() as u64, next] {
        let mut found = vec![0; code.len()];
        memory.read_exact_at(&mut found, at)?;
        if found == code {
            return Ok(Some(at));
        }
    }
    Ok(None)
}

impl Drop for Stopped {
    fn drop(&mut self) {
        // Fails where it was killed.
        let _ = ptrace::setregs(self.thread, self.registers);
        let_go(self.thread);
    }
}

fn let_go(thread: Pid) {
    if ptrace::detach(thread, None).is_err() {
        // Until who traces a dead thread has taken note of it, its process cannot be waited for by anybody.
        let _ = wait(thread);
    }
}

fn wait(thread: Pid) -> nix::Result<WaitStatus> {
    waitpid(thread, Some(WaitPidFlag::__WALL))
}

#[cfg(target_arch = "x86_64")]
mod machine {
    use super::{c_long, user_regs_struct};

    /// The code of the instruction for system calls, and the address of the next one.
    pub(super) fn instruction(registers: &user_regs_struct) -> (&'static [u8], u64) {
        (&[0x0f, 0x05], registers.rip)
    }

    pub(super) fn stack(registers: &user_regs_struct) -> u64 {
        registers.rsp
    }

    pub(super) fn arguments(
        registers: &mut user_regs_struct,
        at: u64,
        number: c_long,
        values: [u64; 6],
    ) {
        registers.rip = at;
        registers.rax = number as u64;
        // It is not in a call that could be restarted.
        registers.orig_rax = u64::MAX;
        [
            registers.rdi,
            registers.rsi,
            registers.rdx,
            registers.r10,
            registers.r8,
            registers.r9,
        ] = values;
    }

    pub(super) fn result(registers: &user_regs_struct) -> i64 {
        registers.rax as i64
    }
}

#[cfg(target_arch = "aarch64")]
mod machine {
    use super::{c_long, user_regs_struct};

    /// The code of the instruction for system calls, and the address of the next one.
    pub(super) fn instruction(registers: &user_regs_struct) -> (&'static [u8], u64) {
        // svc #0
        (&[0x01, 0x00, 0x00, 0xd4], registers.pc)
    }

    pub(super) fn stack(registers: &user_regs_struct) -> u64 {
        registers.sp
    }

    pub(super) fn arguments(
        registers: &mut user_regs_struct,
        at: u64,
        number: c_long,
        values: [u64; 6],
    ) {
        registers.pc = at;
        registers.regs[8] = number as u64;
        registers.regs[..6].copy_from_slice(&values);
    }

    pub(super) fn result(registers: &user_regs_struct) -> i64 {
        registers.regs[0] as i64
    }
}
