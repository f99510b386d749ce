/*
 * What Bun gives to a process as standard input and output are sockets. A container runtime gives pipes, which
 * others can open anew: cats copy between the two.
 */
const BETWEEN_PIPES = `
use POSIX 'dup2';
pipe(my $in, my $typed) && pipe(my $printed, my $out) or die "pipe: $!";
for ([$typed, 1], [$printed, 0]) {
  defined(my $pid = fork) or die "fork: $!";
  next if $pid;
  dup2(fileno $_->[0], $_->[1]);
  exec '/bin/cat';
}
dup2(fileno $in, 0);
dup2(fileno $out, 1);
exec { $ARGV[0] } @ARGV or exit 127`;

type Piped = Bun.Subprocess<"pipe", "pipe", "ignore">;

/** Runs a command whose standard input and output are pipes, with our ends of them in `stdin` and `stdout`. */
export function spawnBetweenPipes(
  command: string[],
  env: Record<string, string | undefined> = process.env,
): Piped {
  return Bun.spawn(["/usr/bin/perl", "-e", BETWEEN_PIPES, ...command], {
    env,
    stdin: "pipe",
    stdout: "pipe",
    stderr: "ignore",
    detached: true,
  });
}

/** Ends it and what copies for it: what is on the way is lost. */
export function cutPipes(piped: Piped): void {
  try {
    process.kill(-piped.pid, "SIGKILL");
  } catch {
    // It has ended, and so has what copied for it.
  }
}
