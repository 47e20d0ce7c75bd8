# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# What OpenSSH on Windows calls to connect to a host behind a door: portknock-connect.ps1 NAME HOST PORT
# Knocks, connects, knocks again if that was not let in, and then copies between ssh and the connection. The steps are
# in the file `knocks` beside this one, a line for each host: NAME ENGINE PAUSE HOST_TO_KNOCK_AT_OR_- STEP... where the
# engine is what recognises the knock.
# For Windows PowerShell 5.1 and later. It must be started with -InputFormat None, or PowerShell reads what is ssh's.

param(
    [Parameter(Mandatory = $true)][string] $Name,
    [Parameter(Mandatory = $true)][string] $HostName,
    [Parameter(Mandatory = $true)][int] $Port
)

Set-StrictMode -Version 2
$ErrorActionPreference = 'Stop'

$ConnectMilliseconds = 3000
$BannerMilliseconds = 5000
$Pauses = 100, 250, 500, 1000
# Milliseconds after which no new try begins where the port answers each time that it is closed.
$AnsweredMilliseconds = 2500

function Stop-WithMessage([string] $Message) {
    [Console]::Error.WriteLine('portknock: ' + $Message)
    [Environment]::Exit(255)
}

# Returns what the file says of the host.
function Read-Knock([string] $Wanted) {
    $file = Join-Path $PSScriptRoot 'knocks'
    if (-not [IO.File]::Exists($file)) { Stop-WithMessage "$file is not there. Copy the whole directory." }
    foreach ($line in [IO.File]::ReadAllLines($file)) {
        $words = @($line -split ' ')
        if ($words[0] -ceq $Wanted) {
            # What an engine needs, as in ENGINES of _knock.py.
            $keeps = $words[1] -ceq 'knockd'
            $settle = 0
            $tries = 3
            if ($keeps) { $settle = 100; $tries = 5 }
            return @{
                Pause       = [int] (1000 * [double]::Parse($words[2], [Globalization.CultureInfo]::InvariantCulture))
                At          = $words[3]
                Steps       = @($words[4..($words.Count - 1)])
                Settle      = $settle
                Tries       = $tries
                KeepsBroken = $keeps
            }
        }
    }
    Stop-WithMessage "$Wanted is not in $file. Ask for a new directory."
}

function Resolve-Address([string] $Target) {
    try {
        return @([Net.Dns]::GetHostAddresses($Target.Trim('[', ']')))
    } catch {
        Stop-WithMessage "$Target has no address: $($_.Exception.GetBaseException().Message)"
    }
}

# Sends one step to an address and returns what must be closed after the pause; nothing where it cannot be sent.
function Send-Step([Net.IPAddress] $Address, [string] $Step) {
    $number, $protocol = $Step -split '/'
    $endpoint = New-Object Net.IPEndPoint($Address, [int] $number)
    try {
        if ($protocol -eq 'udp') {
            $socket = New-Object Net.Sockets.Socket($Address.AddressFamily, 'Dgram', 'Udp')
            # One byte, because some routers throw empty datagrams away.
            [void] $socket.SendTo([byte[]] @(0), $endpoint)
        } else {
            $socket = New-Object Net.Sockets.Socket($Address.AddressFamily, 'Stream', 'Tcp')
            [void] $socket.BeginConnect($endpoint, $null, $null)
        }
        return $socket
    } catch {
        $script:Reason = $_.Exception.GetBaseException().Message
    }
}

function Send-Step-To-All([Net.IPAddress[]] $Addresses, [string[]] $Steps, [int] $Pause) {
    foreach ($step in $Steps) {
        $open = @(foreach ($address in $Addresses) { Send-Step $address $step })
        if ($open.Count -eq 0) {
            Stop-WithMessage "the knock cannot leave this machine ($script:Reason). Check the address and the network."
        }
        Start-Sleep -Milliseconds $Pause
        foreach ($socket in $open) { $socket.Close() }
    }
}

# Some engines keep what arrived of a knock whose end got lost; the last step, sent before the first, ends that. Every fourth
# further try is plain, because a door may have a close knock that the others would begin each time.
function Get-Steps($Knock, [int] $Turn) {
    $steps = $Knock.Steps
    if ($Turn % 4 -and $steps.Count -gt 1 -and $Knock.KeepsBroken) { return @($steps[-1]) + $steps }
    return $steps
}

function Send-Knock($Knock, [Net.IPAddress[]] $Addresses, [int] $Turn) {
    $steps = @(Get-Steps $Knock $Turn)
    # Steps of two ssh at once to the same host would mix.
    $mutex = New-Object Threading.Mutex($false, "portknock-$Name")
    try { [void] $mutex.WaitOne(3000) } catch { $null = $_ }
    try {
        if ($Knock.KeepsBroken) {
            foreach ($address in $Addresses) { Send-Step-To-All @($address) $steps $Knock.Pause }
            Start-Sleep -Milliseconds $Knock.Settle
        } else {
            Send-Step-To-All $Addresses $steps $Knock.Pause
        }
    } finally {
        try { $mutex.ReleaseMutex() } catch { $null = $_ }
    }
}

# Returns an open connection whose server has said something; nothing where it was not let in.
function Connect-Address([Net.IPAddress] $Address) {
    $client = New-Object Net.Sockets.TcpClient($Address.AddressFamily)
    try {
        $begun = $client.BeginConnect($Address, $Port, $null, $null)
        if (-not $begun.AsyncWaitHandle.WaitOne($ConnectMilliseconds)) { throw 'TimedOut' }
        $client.EndConnect($begun)
        $client.NoDelay = $true
        if (-not $client.Client.Poll(1000 * $BannerMilliseconds, [Net.Sockets.SelectMode]::SelectRead)) { throw 'Mute' }
        if ($client.Available -eq 0) { throw 'HungUp' }
        return $client
    } catch {
        $problem = $_.Exception.GetBaseException()
        $script:Reason = $problem.Message
        if ($problem -is [Net.Sockets.SocketException]) { $script:Reason = [string] $problem.SocketErrorCode }
        $client.Close()
    }
}

# Says what a reason means; as in MEANINGS of _client/answers.py.
function Get-Meaning([string] $Reason) {
    switch ($Reason) {
        'ConnectionRefused' { return 'it is refused: perhaps the host did not accept the knock, perhaps the door is open and nothing listens behind it' }
        'TimedOut' { return 'nothing answers: perhaps the host is down, perhaps a firewall drops the packets, perhaps the host did not accept the knock' }
        'HostUnreachable' { return 'no host answers at this address: it is down, or the address is not its own' }
        'HostDown' { return 'no host answers at this address: it is down, or the address is not its own' }
        'NetworkUnreachable' { return 'this machine has no route to it' }
        'Mute' { return 'it accepts the connection and then sends nothing: what listens there hangs, or is no ssh server' }
        'HungUp' { return 'it accepts the connection and closes it at once: the ssh server does not take this address for now (MaxStartups, PerSourcePenalties), or the port is forwarded to where nothing listens' }
    }
    return $Reason
}

# Copies until one side ends.
function Copy-Both([Net.Sockets.TcpClient] $Client) {
    $stream = $Client.GetStream()
    $up = [Console]::OpenStandardInput().CopyToAsync($stream)
    $down = $stream.CopyToAsync([Console]::OpenStandardOutput())
    [void] [Threading.Tasks.Task]::WaitAny([Threading.Tasks.Task[]] @($up, $down))
    if (-not $down.IsCompleted) {
        # ssh has no more to say, and may still wait for an answer.
        try {
            $Client.Client.Shutdown([Net.Sockets.SocketShutdown]::Send)
            $down.Wait()
        } catch { $null = $_ }
    }
    # Not `exit`, which would wait for a read of the input that never ends.
    [Environment]::Exit(0)
}

$Reason = ''
$Knock = Read-Knock $Name
$Addresses = Resolve-Address $HostName
$KnockAt = $Addresses
if ($Knock.At -ne '-') { $KnockAt = Resolve-Address $Knock.At }
$Clock = [Diagnostics.Stopwatch]::StartNew()
for ($Turn = 0; $Turn -lt $Knock.Tries; $Turn++) {
    Send-Knock $Knock $KnockAt $Turn
    $Answered = $true
    foreach ($Address in $Addresses) {
        $Client = Connect-Address $Address
        if ($null -ne $Client) { Copy-Both $Client }
        if (($Reason -eq 'TimedOut') -or ($Reason -eq 'Mute')) { $Answered = $false }
    }
    if ($Answered -and ($Turn -ge 1) -and ($Clock.ElapsedMilliseconds -ge $AnsweredMilliseconds)) { $Turn++; break }
    Start-Sleep -Milliseconds $Pauses[[Math]::Min($Turn, 3)]
}
$Meaning = Get-Meaning $Reason
$Advice = ''
if ($Meaning -like '*accept the knock*') { $Advice = ' Has the knock changed? Then ask for a new directory.' }
Stop-WithMessage "no connection to port $Port of $HostName after $Turn knocks: $Meaning.$Advice"
