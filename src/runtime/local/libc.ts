import { dlopen, FFIType } from "bun:ffi";

const { i32, i64_fast, ptr, u32, u64, u64_fast } = FFIType;

/** open(2), and what else opens: no child gets it. Node has no constant for it. */
export const O_CLOEXEC = 0o2000000;

/** glibc's and musl's names. */
const NAMES = ["libc.so.6", "libc.musl-x86_64.so.1", "libc.musl-aarch64.so.1"];

type CLibrary = ReturnType<typeof open>;

let loaded: CLibrary | undefined;

function open(name: string) {
  const { symbols } = dlopen(name, {
    ioctl: { args: [i32, u64, ptr], returns: i32 },
    read: { args: [i32, ptr, u64_fast], returns: i64_fast },
    write: { args: [i32, ptr, u64_fast], returns: i64_fast },
    epoll_create1: { args: [i32], returns: i32 },
    epoll_ctl: { args: [i32, i32, i32, ptr], returns: i32 },
    epoll_wait: { args: [i32, ptr, i32, i32], returns: i32 },
    eventfd: { args: [u32, i32], returns: i32 },
    syscall: { args: [u64_fast, u64_fast, u64_fast, u64_fast, u64_fast, u64_fast], returns: i64_fast },
  });
  return symbols;
}

/**
 * Functions of the C library, for what Bun has none of its own. They fail with -1: errno can't be asked for.
 *
 * @throws when there is no C library that is known
 */
export function libc(): CLibrary {
  loaded ??= load();
  return loaded;
}

function load(): CLibrary {
  for (const name of NAMES) {
    try {
      return open(name);
    } catch {
      // It may be another one.
    }
  }
  throw new Error("no C library was found to open terminals with");
}
