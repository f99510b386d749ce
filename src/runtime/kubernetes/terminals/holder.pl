# Holds a terminal session of a container, so that it outlives the connections to it and the DevPocket server:
#
#   open FOLDER ID PATIENCE COLS ROWS COMMAND...   begins one, and attaches to it
#   attach FOLDER ID PATIENCE OFFSET               attaches to it, from this byte of its output on
#   list FOLDER                                    a line for each session whose command runs: its id
#
# Attached is who has standard input and output. When that connection is lost, a flood is held up for PATIENCE
# seconds, so that the next one can go on without a gap.
#
# What goes through them, and through the socket FOLDER/ID, are frames: a letter, the length of what follows (32
# bits, big-endian), and that. From the holder: h(ead) "START FROM END COLS ROWS SINCE WINDOW MODES" (how much may be
# on the way; in hex, what sets a terminal's modes and title as the output before START has), and a line "CLIENT BYTES
# SEQ PART" for each place in the input; o(utput); i(nput taken) with such a place; j(obs) "COUNT FOREGROUND"; p(ong);
# (e)x(it) "CODE"; g(one). To the holder: A(ttach) "OFFSET PATIENCE RELAY"; c(redit) "OFFSET AHEAD": it may send output
# before this one, and have so many bytes more ready; w(rite): a place, a newline, and input with which the client has
# typed BYTES in all, and SEQ messages and PART bytes of the next; r(esize) "COLS ROWS"; j(obs); p(ing); k(ill), and
# after the end: it has been heard of.
#
# Only what Debian's perl-base has is used. It runs as the container's user, who may as well read and end it.
use strict;
use warnings;
use Errno qw(EAGAIN EINTR);
use Fcntl;
use POSIX ();
use Socket;

my $KEPT = 3 << 20;          # of the output: more than may be on the way and what is read beyond that
my $ON_THE_WAY = 1536 << 10;
my $AHEAD = 512 << 10;       # how far a terminal may run on after what a connection was sent, lost ones too
my $PIECE = 16 * 4095;       # what a full terminal gives in 16 reads; as a frame it just fits an empty pipe
my $FRAME = 64 << 10;
my $LARGEST = 2 << 20;       # of what is taken for a frame
my $TYPED = 256 << 10;       # input that the terminal has not taken: with more, no more is said to be taken
my $CLIENTS = 64;
my $MODES = 64;              # that are remembered
my $SEQUENCE = 1024;         # bytes of one that is looked for, over the border of two pieces
my $SILENT = 90;             # seconds without a word after which a connection counts as lost
my $UNHEARD = 600;           # how long an end is kept that nobody has heard of
my $FORGOTTEN = 24 * 3600;   # a shell without jobs that nobody has asked for this long ends
my $KILL_AFTER = 2;

my ($TIOCSPTLCK, $TIOCGPTN, $TIOCSCTTY, $TIOCSWINSZ) = (0x40045431, 0x80045430, 0x540e, 0x5414);

my ($verb, $folder, @args) = @ARGV;
$SIG{PIPE} = 'IGNORE';
umask 0077;
if ($verb eq 'open') { start(@args) }
elsif ($verb eq 'attach') { relay(@args) }
elsif ($verb eq 'list') { sessions() }
else { die "no such verb: $verb\n" }

sub frame { my ($type, $text) = @_; return pack('a1 N', $type, length $text) . $text }

sub blocking {
  my ($fh, $on) = @_;
  my $flags = fcntl($fh, F_GETFL, 0) or die "fcntl: $!\n";
  fcntl($fh, F_SETFL, $on ? $flags & ~O_NONBLOCK : $flags | O_NONBLOCK) or die "fcntl: $!\n";
}

sub dial {
  my ($path) = @_;
  socket(my $fh, PF_UNIX, SOCK_STREAM, 0) or die "socket: $!\n";
  return connect($fh, pack_sockaddr_un($path)) ? $fh : undef;
}

sub sessions {
  opendir(my $dir, $folder) or return;
  for my $name (grep { !/\./ } readdir $dir) {
    if (dial("$folder/$name")) { print "$name\n" }
    else { unlink "$folder/$name" }    # of a container that has been started again
  }
}

# Between the connection that has started this process and the holder.
sub relay {
  my ($id, $patience, $offset) = @_;
  my $fh = dial("$folder/$id") // dial("$folder/$id.over");
  if (!$fh) { syswrite STDOUT, frame('g', ''); exit 0 }
  syswrite $fh, frame('A', "$offset $patience $$");
  # Where the holder can open our pipes, it needs us no more: while we are there, so is the connection.
  sysread($fh, my $answer, 1) or exit 0;
  if ($answer eq 'd') { 1 while sysread($fh, my $nothing, 1); exit 0 }
  # One that is older than this script does not answer, and begins with a frame.
  my @ways = ([\*STDIN, $fh, ''], [$fh, \*STDOUT, $answer eq 'r' ? '' : $answer]);
  blocking($_, 0) for \*STDIN, \*STDOUT, $fh;
  while (1) {
    my ($r, $w) = ('', '');
    for (@ways) { my ($in, $out, $held) = @$_; length $held ? vec($w, fileno $out, 1) : vec($r, fileno $in, 1) = 1 }
    select($r, $w, undef, undef) < 0 && ($! == EINTR ? next : exit 1);
    for my $way (@ways) {
      my ($in, $out) = @$way;
      if (!length $way->[2] && vec($r, fileno $in, 1)) {
        my $n = sysread($in, $way->[2], $FRAME);
        exit 0 if defined $n ? $n == 0 : $! != EAGAIN && $! != EINTR;
      }
      next if !length $way->[2];
      my $n = syswrite($out, $way->[2]);
      exit 0 if !defined $n && $! != EAGAIN && $! != EINTR;
      substr($way->[2], 0, $n, '') if $n;
    }
  }
}

# The holder is a child of the container's first process, and ends with the container.
sub start {
  my ($id, $patience, @rest) = @_;
  -d $folder or mkdir $folder, 0700 or die "$folder: $!\n";
  my ($pty, $tty) = new_pty();
  socket(my $listener, PF_UNIX, SOCK_STREAM, 0) or die "socket: $!\n";
  bind($listener, pack_sockaddr_un("$folder/$id")) or die "$folder/$id: $!\n";
  listen($listener, 16) or die "listen: $!\n";
  defined(my $child = fork) or die "fork: $!\n";
  if (!$child) {
    POSIX::setsid();
    exit 0 if fork;
    open($_->[0], $_->[1], '/dev/null') for [\*STDIN, '<'], [\*STDOUT, '>'], [\*STDERR, '>'];
    $0 = "devpocket-terminal $id";
    hold($listener, $pty, $tty, $id, $patience, @rest);
    POSIX::_exit(0);
  }
  waitpid($child, 0);
  close $_ for $pty, $listener;
  relay($id, $patience, 0);
}

sub new_pty {
  sysopen(my $pty, '/dev/ptmx', O_RDWR | O_NOCTTY) or die "/dev/ptmx: $!\n";
  my $number = pack 'i', 0;
  ioctl($pty, $TIOCSPTLCK, my $unlocked = pack 'i', 0) or die "unlockpt: $!\n";
  ioctl($pty, $TIOCGPTN, $number) or die "ptsname: $!\n";
  return ($pty, '/dev/pts/' . unpack('i', $number));
}

sub resize { my ($pty, $cols, $rows) = @_; ioctl($pty, $TIOCSWINSZ, pack('S4', $rows, $cols, 0, 0)) }

sub shell {
  my ($tty, @command) = @_;
  defined(my $pid = fork) or die "fork: $!\n";
  return $pid if $pid;
  POSIX::setsid();
  sysopen(my $fh, $tty, O_RDWR) or POSIX::_exit(126);
  ioctl($fh, $TIOCSCTTY, 0);
  POSIX::dup2(fileno $fh, $_) for 0 .. 2;
  # What is ignored when a shell begins it can never trap.
  $SIG{$_} = 'DEFAULT' for grep { !/^__/ } keys %SIG;
  umask 0022;
  exec { $command[0] } @command or POSIX::_exit(127);
}

sub hold {
  my ($listener, $pty, $tty, $id, $patience, $cols, $rows, @command) = @_;
  my @kept;                     # output, in pieces of PIECE bytes, the last one shorter
  my ($from, $end) = (0, 0);    # offsets of the first byte that is kept and of the next that is read
  my %before = (rest => '', modes => {});    # what the output before that has set
  my $typed = '';
  my ($since, $asked) = (time) x 2;
  my (%conns, $viewer, %taken, @order, @untold);
  # How far the last viewer had come, how much may be read beyond that, and until when it is waited for: at first who
  # has begun the session.
  my $lost = { at => 0, ahead => $FRAME, until => time + $patience };
  my ($code, $exited_at, $silent, $is_heard, $kill_at, $ended_at);    # $silent: there is nothing more to be read
  resize($pty, $cols, $rows);
  my $shell = shell($tty, @command);
  my $umask = umask 0077;
  $SIG{CHLD} = sub { };
  blocking($_, 0) for $pty, $listener;

  my $drop = sub {
    my ($conn) = @_;
    return if $conn->{gone}++;
    delete $conns{fileno $conn->{fh}};
    close $_ for grep { defined } @$conn{qw(from to fh)};
    return if !$viewer || $viewer != $conn;
    ($viewer, $asked) = (undef, time);
    $lost = { at => $conn->{at}, ahead => $AHEAD, until => time + $conn->{patience} } if defined $conn->{credit};
  };
  my $flush = sub {
    my ($conn) = @_;
    return if $conn->{gone} || !length $conn->{out};
    my $n = syswrite($conn->{to} // $conn->{fh}, $conn->{out});
    return $drop->($conn) if !defined $n && $! != EAGAIN && $! != EINTR;
    substr($conn->{out}, 0, $n, '') if $n;
  };
  # What the viewer may have, and in the end the exit code.
  my $pump = sub {
    while ($viewer) {
      my $is_full = length $viewer->{out} >= $FRAME;
      my $n = $is_full || !defined $viewer->{credit} ? 0 : $viewer->{credit} - $viewer->{at};
      $n = $end - $viewer->{at} if $n > $end - $viewer->{at};
      if ($n > 0) {
        my $at = $viewer->{at} - $from;
        my $piece = \$kept[$at / $PIECE];
        my $left = length($$piece) - $at % $PIECE;
        $n = $left if $n > $left;
        $viewer->{out} .= pack('a1 N', 'o', $n);
        $viewer->{out} .= substr($$piece, $at % $PIECE, $n);
        $viewer->{at} += $n;
      }
      $flush->($viewer);
      # What is left unsent has something in its way that will be heard of.
      last if !$viewer || length $viewer->{out} || $n <= 0 && !$is_full;
    }
    return if !$viewer || !defined $ended_at || !defined $viewer->{credit} || $viewer->{at} < $end;
    return if $viewer->{told}++;
    $viewer->{out} .= frame('x', $code);
  };
  my %on = (
    A => sub {
      my ($conn, $text) = @_;
      $drop->($viewer) if $viewer && $viewer != $conn;
      $viewer = $conn;
      ($conn->{at}, $conn->{patience}, my $relay) = split / /, $text;
      take_over($conn, $relay) if defined $relay;
      $conn->{at} = $from if $conn->{at} < $from;
      $conn->{at} = $end if $conn->{at} > $end;
      my $places = join '', map { "$_ @{$taken{$_}}\n" } @order;
      my $modes = unpack 'H*', modes(\%before);
      $conn->{out} .= frame('h', "$from $conn->{at} $end $cols $rows $since $ON_THE_WAY $modes\n$places");
    },
    c => sub {
      my ($conn, $text) = @_;
      ($conn->{credit}, my $ahead) = split / /, $text;
      $conn->{ahead} = $ahead < $AHEAD ? $ahead : $AHEAD if defined $ahead;
    },
    w => sub {
      my ($conn, $text) = @_;
      my $head = index $text, "\n";
      my ($client, $bytes, @rest) = split / /, substr($text, 0, $head);
      @order = grep { $_ ne $client } @order;
      push @order, $client;
      delete $taken{shift @order} if @order > $CLIENTS;
      # What is sent again after a lost connection is applied once.
      if ($bytes > ($taken{$client} // [0])->[0]) {
        $taken{$client} = [$bytes, @rest];
        $typed .= substr($text, $head + 1) if !defined $ended_at;
      }
      push @untold, $client;
    },
    r => sub { ($cols, $rows) = split / /, $_[1]; resize($pty, $cols, $rows) },
    j => sub { $_[0]{out} .= frame('j', jobs($shell)) },
    p => sub { $_[0]{out} .= frame('p', '') },
    k => sub {
      return $is_heard = 1 if $_[0]{told};
      signal_session($shell, 'HUP', 'CONT', 'TERM');
      $kill_at //= time + $KILL_AFTER;
    },
  );
  my $hear = sub {
    my ($conn) = @_;
    return if $conn->{gone};
    my $n = sysread($conn->{from} // $conn->{fh}, $conn->{in}, $FRAME, length $conn->{in});
    return if !defined $n && ($! == EAGAIN || $! == EINTR);
    return $drop->($conn) if !$n;
    $conn->{heard} = time;
    while (length $conn->{in} >= 5) {
      my ($type, $length) = unpack 'a1 N', $conn->{in};
      return $drop->($conn) if $length > $LARGEST || !$on{$type};
      last if length $conn->{in} < 5 + $length;
      my $text = substr($conn->{in}, 5, $length);
      substr($conn->{in}, 0, 5 + $length, '');
      $on{$type}->($conn, $text);
    }
  };
  # How much may be read: someone who is attached and does not read on holds the terminal up, and so does one who may
  # come back.
  my $room = sub {
    return ($viewer->{ahead} // $FRAME) - ($end - $viewer->{at}) if $viewer;
    return $lost->{ahead} - ($end - $lost->{at}) if time < $lost->{until};
    return $PIECE;
  };
  # A full terminal gives 4 KB a read; several of them make a frame.
  my $read = sub {
    my ($most) = @_;
    push @kept, '' if !@kept || length $kept[-1] == $PIECE;
    while ((my $wanted = $PIECE - length $kept[-1]) > 0 && $most > 0) {
      my $n = sysread($pty, $kept[-1], $wanted < $most ? $wanted : $most, length $kept[-1]);
      if (!$n) { $silent = 1 if defined $n || ($! != EAGAIN && $! != EINTR); last }
      $end += $n;
      $most -= $n;
      last if $n < 1024;
    }
    return if $end - $from - $PIECE < $KEPT;
    see(\%before, shift @kept);
    $from += $PIECE;
  };

  while (1) {
    my ($r, $w, $wait) = ('', '', 15);
    vec($r, fileno $listener, 1) = 1;
    my $held_up = $room->() <= 0;
    $wait = 1 if $held_up && !$viewer;
    $wait = 0.05 if defined $code && !defined $ended_at && !$held_up;
    $wait = 0.02 if $viewer && @untold && length $typed <= $TYPED;
    $wait = 1 if defined $kill_at && $wait > 1;
    vec($r, fileno $pty, 1) = 1 if !$silent && !$held_up;
    vec($w, fileno $pty, 1) = 1 if length $typed;
    my @conns = values %conns;
    for (@conns) {
      vec($r, fileno $_, 1) = 1 for grep { defined } @$_{qw(fh from)};
      vec($w, fileno($_->{to} // $_->{fh}), 1) = 1 if length $_->{out};
    }
    my $ready = select($r, $w, undef, $wait);
    my $now = time;
    if ($ready > 0) {
      if (vec($r, fileno $listener, 1) && accept(my $fh, $listener)) {
        blocking($fh, 0);
        $conns{fileno $fh} = { fh => $fh, in => '', out => '', heard => $now };
      }
      for my $conn (@conns) {
        next if $conn->{gone};
        # Its relay has nothing to say any more but that it has ended.
        if ($conn->{from} && vec($r, fileno $conn->{fh}, 1)) { $drop->($conn) }
        elsif (vec($r, fileno($conn->{from} // $conn->{fh}), 1)) { $hear->($conn) }
      }
      if (length $typed && vec($w, fileno $pty, 1)) {
        my $n = syswrite($pty, $typed, $FRAME);
        if ($n) { substr($typed, 0, $n, '') }
        elsif ($! != EAGAIN && $! != EINTR) { $typed = '' }
      }
      my $most = $room->();
      $read->($most) if !$silent && $most > 0 && vec($r, fileno $pty, 1);
    }
    if (!defined $code && waitpid($shell, POSIX::WNOHANG()) > 0) {
      $code = $? & 127 ? 128 + ($? & 127) : $? >> 8;
      $exited_at = $now;
    }
    # Without anyone on its other side a terminal gives an error, and may be opened again while its shell lives.
    if ($silent && !defined $code) { $silent = 0; select(undef, undef, undef, 0.02) }
    $silent = 1 if defined $code && !$held_up && $ready == 0 && $now - $exited_at > 1;
    if ($silent && defined $code && !defined $ended_at) {
      $ended_at = $now;
      rename "$folder/$id", "$folder/$id.over";
    }
    if (defined $kill_at && $now >= $kill_at) { signal_session($shell, 'KILL'); undef $kill_at }
    # Written together with the echo: of two small packets the second may wait for the first one's acknowledgement.
    my $is_due = $ready == 0 || @untold > 16 || ($viewer && $end > $viewer->{at});
    if ($is_due && $viewer && length $typed <= $TYPED) {
      my %seen;
      for (grep { !$seen{$_}++ } splice @untold) {
        $viewer->{out} .= frame('i', "$_ @{$taken{$_}}") if $taken{$_};
      }
    }
    $flush->($_) for grep { !$viewer || $_ != $viewer } @conns;
    $pump->();
    $drop->($_) for grep { $now - $_->{heard} > $SILENT } @conns;
    last if $is_heard;
    last if defined $ended_at && !$viewer && $now - $ended_at > $UNHEARD;
    if (!defined $ended_at && !$viewer && $now - $asked > $FORGOTTEN) {
      $asked = $now;
      $kill_at //= $now if jobs($shell) =~ /^0 /;
    }
  }
  unlink "$folder/$id", "$folder/$id.over";
}

# Uses the pipes of a relay without it: every byte is copied once less and wakes one process less. They are opened anew,
# so that its own stay as they are. Sockets can't be opened so, nor what is another user's: then it relays.
sub take_over {
  my ($conn, $relay) = @_;
  my $pipes = "/proc/$relay/fd";
  my $is_direct = sysopen(my $from, "$pipes/0", O_RDONLY | O_NONBLOCK) && sysopen(my $to, "$pipes/1", O_WRONLY | O_NONBLOCK);
  @$conn{qw(from to)} = ($from, $to) if $is_direct;
  syswrite $conn->{fh}, $is_direct ? 'd' : 'r';
}

# Looks through output that is about to be forgotten for what outlasts it: private modes (DECSET), the keypad's, the
# title.
sub see {
  my ($before, $piece) = @_;
  return if $before->{rest} eq '' && index($piece, "\e") < 0;
  my $text = $before->{rest} . $piece;
  while ($text =~ /\e(?:\[\?([\d;]+)([hl])|\][02];([^\a\e]{0,$SEQUENCE})(?:\a|\e\\)|([c=>]))/g) {
    my ($modes, $letter, $title, $single) = ($1, $2, $3, $4);
    if (defined $title) { $before->{title} = $title }
    elsif (defined $modes) {
      for (grep { /^\d{1,5}$/ } split /;/, $modes) {
        $before->{modes}{$_} = $letter if $before->{modes}{$_} || keys %{ $before->{modes} } < $MODES;
      }
    }
    elsif ($single eq 'c') {
      # Wrapping and the cursor are on in a fresh terminal.
      $before->{modes}{$_} = /^(?:7|25)$/ ? 'h' : 'l' for keys %{ $before->{modes} };
      $before->{keypad} = '>' if $before->{keypad};
    }
    else { $before->{keypad} = $single }
  }
  my $last = length $text > $SEQUENCE ? substr($text, -$SEQUENCE) : $text;
  $before->{rest} = $last =~ /(\e(?:\[(?:\?[\d;]*)?|\](?:[02](?:;[^\a\e]*\e?)?)?)?)\z/ ? $1 : '';
}

sub modes {
  my ($before) = @_;
  my $modes = join '', map { "\e[?$_$before->{modes}{$_}" } sort keys %{ $before->{modes} };
  $modes .= "\e$before->{keypad}" if $before->{keypad};
  $modes .= "\e]2;$before->{title}\a" if defined $before->{title};
  return $modes;
}

# Process, session and foreground process group of every process.
sub processes {
  opendir(my $dir, '/proc') or return;
  my @found;
  for my $pid (grep { /^\d+$/ } readdir $dir) {
    open(my $fh, '<', "/proc/$pid/stat") or next;
    my $line = <$fh> // next;
    my ($name, $rest) = $line =~ /\((.*)\) (.*)/s or next;
    my ($state, undef, undef, $session, undef, $foreground) = split / /, $rest;
    push @found, { pid => $pid, name => $name, session => $session, foreground => $foreground } if $state ne 'Z';
  }
  return @found;
}

sub signal_session {
  my ($shell, @signals) = @_;
  my @pids = map { $_->{pid} } grep { $_->{session} == $shell } processes();
  for my $signal (@signals) { kill $signal, @pids }
}

sub jobs {
  my ($shell) = @_;
  my @all = grep { $_->{session} == $shell } processes();
  my ($first) = grep { $_->{pid} == $shell } @all;
  my ($front) = grep { $first && $_->{pid} == $first->{foreground} && $_->{pid} != $shell } @all;
  return scalar(grep { $_->{pid} != $shell } @all) . ' ' . ($front ? $front->{name} : '');
}
