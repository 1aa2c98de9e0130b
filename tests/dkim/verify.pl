# What Mail::DKIM says of each signature of messages in files: a line with file, domain and result.
# usage: perl verify.pl HOST PORT FILE...; the records are asked of the DNS server at HOST and PORT.
use strict;
use warnings;
use Mail::DKIM::DNS;
use Mail::DKIM::Verifier;
use Net::DNS::Resolver;

my ($host, $port, @files) = @ARGV;
Mail::DKIM::DNS::resolver(Net::DNS::Resolver->new(nameservers => [$host], port => $port));
for my $file (@files) {
    open my $message, '<:raw', $file or die "$file: $!";
    local $/;
    my $verifier = Mail::DKIM::Verifier->new();
    $verifier->PRINT(<$message>);
    $verifier->CLOSE;
    for my $signature ($verifier->signatures) {
        my ($domain, $result) = ($signature->domain // '-', $signature->result_detail);
        print "$file $domain ", $result =~ s/\s+/ /gr, "\n";
    }
}
