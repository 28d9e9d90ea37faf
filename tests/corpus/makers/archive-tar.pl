# archive-tar.pl VARIANT SOURCE: writes a tar of SOURCE with Archive::Tar.
use strict;
use warnings;
use Archive::Tar;
use File::Find;

my ($variant, $source) = @ARGV;
chdir $source or die "$source: $!";
my @names;
find({ no_chdir => 1, wanted => sub { push @names, $_ } }, '.');
@names = map { s{^\./}{}r } grep { $_ ne '.' } sort @names if $variant eq 'names';
binmode STDOUT;
if ($variant eq 'data') {
    my $tar = Archive::Tar->new;
    $tar->add_data('index.html', "<h1>one</h1>\n");
    $tar->add_data('bin/serve', "#!/bin/sh\n", { mode => 0755 });
    $tar->write(\*STDOUT) or die $tar->error;
} else {
    Archive::Tar->create_archive(\*STDOUT, undef, @names) or die Archive::Tar->error;
}
