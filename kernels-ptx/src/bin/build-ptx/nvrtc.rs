//! NVRTC, the CUDA compiler as a library, opened at run time.

#![allow(unsafe_code, reason = "functions of a library loaded at run time")]

use core::ffi::{CStr, c_char, c_int, c_void};
use core::ptr;
use std::ffi::CString;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use libloading::Library;

use crate::recipe::Sources;

type Program = *mut c_void;
type Status = c_int;
type Strings = *const *const c_char;

/// An opened compiler.
pub(crate) struct Nvrtc {
    create: unsafe extern "C" fn(
        *mut Program,
        *const c_char,
        *const c_char,
        c_int,
        Strings,
        Strings,
    ) -> Status,
    compile: unsafe extern "C" fn(Program, c_int, Strings) -> Status,
    log_size: unsafe extern "C" fn(Program, *mut usize) -> Status,
    log: unsafe extern "C" fn(Program, *mut c_char) -> Status,
    ptx_size: unsafe extern "C" fn(Program, *mut usize) -> Status,
    ptx: unsafe extern "C" fn(Program, *mut c_char) -> Status,
    destroy: unsafe extern "C" fn(*mut Program) -> Status,
    error: unsafe extern "C" fn(Status) -> *const c_char,
    // Unloads what the functions above are in, so it comes after them. NVRTC looks for its
    // builtins by name and finds the ones already loaded, wherever the folder is.
    _library: Library,
    _builtins: Library,
}

impl Nvrtc {
    /// Opens the compiler that lies in `folder`.
    pub(crate) fn open(folder: &Path) -> Result<Self> {
        let open = |name: &str| {
            let path = folder.join(name);
            // SAFETY: the initialisers of NVIDIA's libraries ask nothing of their caller; what
            // they are was pinned by hash when the folder was filled.
            unsafe { Library::new(&path) }
                .with_context(|| format!("cannot open {}", path.display()))
        };
        let builtins = open("libnvrtc-builtins.so.12.0")?;
        let library = open("libnvrtc.so.12")?;
        macro_rules! symbol {
            ($name:literal) => {
                // SAFETY: the type is that of nvrtc.h of CUDA 12.0, field by field above, and the
                // pointer stays behind the library in the same struct.
                *unsafe { library.get($name) }?
            };
        }
        Ok(Self {
            create: symbol!(c"nvrtcCreateProgram"),
            compile: symbol!(c"nvrtcCompileProgram"),
            log_size: symbol!(c"nvrtcGetProgramLogSize"),
            log: symbol!(c"nvrtcGetProgramLog"),
            ptx_size: symbol!(c"nvrtcGetPTXSize"),
            ptx: symbol!(c"nvrtcGetPTX"),
            destroy: symbol!(c"nvrtcDestroyProgram"),
            error: symbol!(c"nvrtcGetErrorString"),
            _library: library,
            _builtins: builtins,
        })
    }

    /// Compiles `name`, one of `sources`, to PTX. A warning is an error.
    pub(crate) fn compile(
        &self,
        name: &str,
        sources: &Sources,
        flags: &[String],
    ) -> Result<String> {
        let source = sources.get(name).with_context(|| format!("there is no cuda/{name}"))?;
        let source = CString::new(source.as_str())?;
        let program_name = CString::new(name)?;
        let headers = sources.iter().filter(|(name, _)| name.ends_with(".cuh"));
        let (header_names, headers): (Vec<_>, Vec<_>) = headers.unzip();
        let (header_names, headers) = (CStrings::new(header_names)?, CStrings::new(headers)?);
        let flags = CStrings::new(flags)?;

        let mut program = ptr::null_mut();
        // SAFETY: source, name and both lists are C strings that live to the end of this
        // function, the lists are as long as said, and `program` is a place for the handle.
        let status = unsafe {
            (self.create)(
                &raw mut program,
                source.as_ptr(),
                program_name.as_ptr(),
                headers.len()?,
                headers.as_ptr(),
                header_names.as_ptr(),
            )
        };
        self.check(status, "nvrtcCreateProgram")?;
        let program = Owned { nvrtc: self, program };

        // SAFETY: the program was created above and `flags` is as long as said.
        let compiled = unsafe { (self.compile)(program.program, flags.len()?, flags.as_ptr()) };
        let log = program.text(self.log_size, self.log).context("nvrtcGetProgramLog")?;
        ensure!(log.trim().is_empty(), "{name} does not compile cleanly:\n{log}");
        self.check(compiled, "nvrtcCompileProgram")?;
        program.text(self.ptx_size, self.ptx).context("nvrtcGetPTX")
    }

    fn check(&self, status: Status, call: &str) -> Result<()> {
        if status == 0 {
            return Ok(());
        }
        // SAFETY: takes any number and returns a string.
        let message = unsafe { (self.error)(status) };
        // SAFETY: NVRTC's error strings are static C strings.
        let message = unsafe { CStr::from_ptr(message) };
        anyhow::bail!("{call}: {} ({status})", message.to_string_lossy())
    }
}

/// A program that is destroyed with its owner.
struct Owned<'a> {
    nvrtc: &'a Nvrtc,
    program: Program,
}

impl Owned<'_> {
    /// A text that NVRTC hands out as a size, its final zero included, and a copy.
    fn text(
        &self,
        size: unsafe extern "C" fn(Program, *mut usize) -> Status,
        copy: unsafe extern "C" fn(Program, *mut c_char) -> Status,
    ) -> Result<String> {
        let mut length = 0;
        // SAFETY: the program is alive and `length` is a place for a size.
        let status = unsafe { size(self.program, &raw mut length) };
        self.nvrtc.check(status, "size")?;
        let mut text = vec![0_u8; length];
        // SAFETY: the program is alive and `text` has the room that NVRTC asked for.
        let status = unsafe { copy(self.program, text.as_mut_ptr().cast()) };
        self.nvrtc.check(status, "copy")?;
        if text.last() == Some(&0) {
            text.pop();
        }
        Ok(String::from_utf8(text)?)
    }
}

impl Drop for Owned<'_> {
    fn drop(&mut self) {
        // SAFETY: the program is alive and nobody uses it after its owner. The status says
        // nothing that could be acted on.
        unsafe { (self.nvrtc.destroy)(&raw mut self.program) };
    }
}

/// Strings as C wants several of them. The pointers are to the heap and survive a move.
struct CStrings {
    pointers: Vec<*const c_char>,
    _strings: Vec<CString>,
}

impl CStrings {
    fn new(strings: impl IntoIterator<Item = impl AsRef<str>>) -> Result<Self> {
        let strings = strings.into_iter().map(|string| CString::new(string.as_ref()));
        let strings = strings.collect::<Result<Vec<_>, _>>()?;
        Ok(Self { pointers: strings.iter().map(|s| s.as_ptr()).collect(), _strings: strings })
    }

    fn len(&self) -> Result<c_int> {
        Ok(self.pointers.len().try_into()?)
    }

    fn as_ptr(&self) -> Strings {
        self.pointers.as_ptr()
    }
}
