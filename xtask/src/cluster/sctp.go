// Package sctp has the part of github.com/ishidawataru/sctp that agnhost uses, for kernels without SCTP sockets: associations of one
// stream by raw IP sockets (RFC 9260). What is on the wire is SCTP, so Services and policies are tested with it.
//
// An association is lost when a packet of it is, but for those that set it up.
package sctp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// Types of chunks (RFC 9260, section 3.2).
const (
	data             = 0
	initiate         = 1
	initiateAck      = 2
	sack             = 3
	abort            = 6
	shutdown         = 7
	shutdownAck      = 8
	cookieEcho       = 10
	cookieAck        = 11
	shutdownComplete = 14
)

// What a receiver has room for, in bytes; no sender here comes near it.
const window = 1 << 16

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// SCTPAddr is the addresses and the port of an endpoint.
type SCTPAddr struct {
	IPAddrs []net.IPAddr
	Port    int
}

func (a *SCTPAddr) Network() string { return "sctp" }

func (a *SCTPAddr) String() string {
	host := ""
	if len(a.IPAddrs) > 0 {
		host = a.IPAddrs[0].String()
	}
	return net.JoinHostPort(host, strconv.Itoa(a.Port))
}

// ResolveSCTPAddr reads "host:port".
func ResolveSCTPAddr(_, address string) (*SCTPAddr, error) {
	found, err := net.ResolveTCPAddr("tcp", address)
	if err != nil {
		return nil, err
	}
	made := &SCTPAddr{Port: found.Port}
	if found.IP != nil {
		made.IPAddrs = []net.IPAddr{{IP: found.IP, Zone: found.Zone}}
	}
	return made, nil
}

// One side's way to the other: ports and verification tags as the sender of a packet has them.
type path struct {
	via          net.PacketConn
	peer         net.IPAddr
	ours, theirs uint16
	tag          uint32
}

func (p *path) send(chunks ...[]byte) error {
	packet := make([]byte, 12)
	binary.BigEndian.PutUint16(packet[0:], p.ours)
	binary.BigEndian.PutUint16(packet[2:], p.theirs)
	binary.BigEndian.PutUint32(packet[4:], p.tag)
	for _, chunk := range chunks {
		packet = append(packet, chunk...)
	}
	binary.LittleEndian.PutUint32(packet[8:], crc32.Checksum(packet, castagnoli))
	_, err := p.via.WriteTo(packet, &p.peer)
	return err
}

func chunk(kind, flags byte, value []byte) []byte {
	made := []byte{kind, flags, 0, 0}
	binary.BigEndian.PutUint16(made[2:], uint16(4+len(value)))
	made = append(made, value...)
	return append(made, make([]byte, -len(made)&3)...)
}

func words(values ...uint32) []byte {
	var made []byte
	for _, value := range values {
		made = binary.BigEndian.AppendUint32(made, value)
	}
	return made
}

// Of INIT and INIT ACK: one stream each way.
func parameters(tag, tsn uint32) []byte {
	return words(tag, window, 1<<16|1, tsn)
}

// Calls handle for each chunk that comes to a port, until the socket is closed.
func receive(via net.PacketConn, port uint16, handle func(from path, kind byte, value []byte)) {
	buffer := make([]byte, 1<<16)
	for {
		n, address, err := via.ReadFrom(buffer)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		packet := buffer[:n]
		if err != nil || n < 12 || binary.BigEndian.Uint16(packet[2:]) != port {
			continue
		}
		sum := binary.LittleEndian.Uint32(packet[8:])
		binary.LittleEndian.PutUint32(packet[8:], 0)
		if crc32.Checksum(packet, castagnoli) != sum {
			continue
		}
		from := path{
			via:    via,
			peer:   *address.(*net.IPAddr),
			ours:   port,
			theirs: binary.BigEndian.Uint16(packet),
			tag:    binary.BigEndian.Uint32(packet[4:]),
		}
		for rest := packet[12:]; len(rest) >= 4; {
			length := int(binary.BigEndian.Uint16(rest[2:]))
			if length < 4 || length > len(rest) {
				break
			}
			handle(from, rest[0], append([]byte(nil), rest[4:length]...))
			rest = rest[min((length+3)&^3, len(rest)):]
		}
	}
}

// SCTPConn is an association.
type SCTPConn struct {
	path
	own      uint32
	lock     sync.Mutex
	next     uint32
	seen     uint32
	ended    error
	messages chan []byte
	deadline time.Time
	release  func()
}

func associate(way path, own, next, seen uint32, release func()) *SCTPConn {
	return &SCTPConn{path: way, own: own, next: next, seen: seen, messages: make(chan []byte, 64), release: release}
}

func (c *SCTPConn) handle(kind byte, value []byte) {
	c.lock.Lock()
	defer c.lock.Unlock()
	switch {
	case kind == data && len(value) > 12 && c.ended == nil:
		if tsn := binary.BigEndian.Uint32(value); tsn == c.seen+1 {
			c.seen = tsn
			c.messages <- value[12:]
		}
		c.send(chunk(sack, 0, words(c.seen, window, 0)))
	case kind == shutdown:
		c.send(chunk(shutdownAck, 0, nil))
		c.end(io.EOF)
	case kind == shutdownAck:
		c.send(chunk(shutdownComplete, 0, nil))
		c.end(io.EOF)
		c.release()
	case kind == shutdownComplete:
		c.release()
	case kind == abort:
		c.end(syscall.ECONNRESET)
		c.release()
	}
}

// Called with the lock held.
func (c *SCTPConn) end(why error) {
	if c.ended == nil {
		c.ended = why
		close(c.messages)
	}
}

// Write sends a message.
func (c *SCTPConn) Write(message []byte) (int, error) {
	c.lock.Lock()
	defer c.lock.Unlock()
	switch c.ended {
	case nil:
	case io.EOF:
		// Lost, as one just before the other end's SHUTDOWN would be.
		return len(message), nil
	default:
		return 0, syscall.EPIPE
	}
	// First and last piece of a message, on stream 0.
	value := append(words(c.next, 0, 0), message...)
	c.next++
	return len(message), c.send(chunk(data, 3, value))
}

// Read waits for a message.
func (c *SCTPConn) Read(buffer []byte) (int, error) {
	var late <-chan time.Time
	if !c.deadline.IsZero() {
		late = time.After(time.Until(c.deadline))
	}
	select {
	case message, ok := <-c.messages:
		if !ok {
			return 0, c.ended
		}
		return copy(buffer, message), nil
	case <-late:
		return 0, os.ErrDeadlineExceeded
	}
}

// SetReadDeadline is for reads that start later.
func (c *SCTPConn) SetReadDeadline(at time.Time) error {
	c.deadline = at
	return nil
}

// SCTPRemoteAddr is who is at the other end.
func (c *SCTPConn) SCTPRemoteAddr(int) (*SCTPAddr, error) {
	return &SCTPAddr{IPAddrs: []net.IPAddr{c.peer}, Port: int(c.theirs)}, nil
}

// Close tells the other end.
func (c *SCTPConn) Close() error {
	c.lock.Lock()
	defer c.lock.Unlock()
	if c.ended != nil {
		return nil
	}
	c.end(net.ErrClosed)
	return c.send(chunk(shutdown, 0, words(c.seen)))
}

// SCTPListener accepts associations.
type SCTPListener struct {
	sockets  []net.PacketConn
	accepted chan *SCTPConn
	lock     sync.Mutex
	known    map[string]*SCTPConn
}

// ListenSCTP listens on a port: of one family, or of both where no address is given.
func ListenSCTP(_ string, address *SCTPAddr) (*SCTPListener, error) {
	listener := &SCTPListener{accepted: make(chan *SCTPConn, 64), known: map[string]*SCTPConn{}}
	networks := []string{"ip4:132", "ip6:132"}
	host := ""
	if len(address.IPAddrs) > 0 {
		host = address.IPAddrs[0].String()
		networks = []string{network(address.IPAddrs[0])}
	}
	for _, network := range networks {
		via, err := net.ListenPacket(network, host)
		if err != nil {
			listener.Close()
			return nil, err
		}
		listener.sockets = append(listener.sockets, via)
		go receive(via, uint16(address.Port), listener.handle)
	}
	return listener, nil
}

func network(address net.IPAddr) string {
	if address.IP.To4() != nil {
		return "ip4:132"
	}
	return "ip6:132"
}

func (l *SCTPListener) handle(from path, kind byte, value []byte) {
	l.lock.Lock()
	name := fmt.Sprint(from.peer.String(), " ", from.theirs)
	conn := l.known[name]
	l.lock.Unlock()
	switch {
	case kind == initiate && len(value) >= 16:
		theirs, tsn := binary.BigEndian.Uint32(value), binary.BigEndian.Uint32(value[12:])
		own, next := rand.Uint32()|1, rand.Uint32()
		from.tag = theirs
		// All that an association needs travels in the cookie.
		cookie := append([]byte{0, 7, 0, 20}, words(theirs, tsn, own, next)...)
		from.send(chunk(initiateAck, 0, append(parameters(own, next), cookie...)))
	case kind == cookieEcho && len(value) >= 16 && from.tag == binary.BigEndian.Uint32(value[8:]):
		if conn == nil || conn.own != from.tag {
			own := from.tag
			from.tag = binary.BigEndian.Uint32(value)
			tsn, next := binary.BigEndian.Uint32(value[4:]), binary.BigEndian.Uint32(value[12:])
			conn = associate(from, own, next, tsn-1, func() { l.forget(name) })
			l.lock.Lock()
			l.known[name] = conn
			l.lock.Unlock()
			l.accepted <- conn
		}
		conn.send(chunk(cookieAck, 0, nil))
	case conn != nil && conn.own == from.tag:
		conn.handle(kind, value)
	}
}

func (l *SCTPListener) forget(name string) {
	l.lock.Lock()
	defer l.lock.Unlock()
	delete(l.known, name)
}

// AcceptSCTP waits for an association.
func (l *SCTPListener) AcceptSCTP() (*SCTPConn, error) {
	return <-l.accepted, nil
}

// Close stops listening.
func (l *SCTPListener) Close() error {
	for _, socket := range l.sockets {
		socket.Close()
	}
	return nil
}

// DialSCTP makes an association; it tries until one side answers.
func DialSCTP(_ string, _, address *SCTPAddr) (*SCTPConn, error) {
	if len(address.IPAddrs) == 0 {
		return nil, errors.New("no address to connect to")
	}
	peer := address.IPAddrs[0]
	via, err := net.ListenPacket(network(peer), "")
	if err != nil {
		return nil, err
	}
	port := uint16(32768 + rand.IntN(28000))
	way := path{via: via, peer: peer, ours: port, theirs: uint16(address.Port)}
	own, next := rand.Uint32()|1, rand.Uint32()
	var conn *SCTPConn
	var cookie []byte
	answers := make(chan error, 1)
	go receive(via, port, func(from path, kind byte, value []byte) {
		switch {
		case from.tag != own || from.theirs != way.theirs || !from.peer.IP.Equal(peer.IP):
		case kind == initiateAck && conn == nil && len(value) > 20:
			way.tag = binary.BigEndian.Uint32(value)
			tsn := binary.BigEndian.Uint32(value[12:])
			cookie = chunk(cookieEcho, 0, value[20:])
			conn = associate(way, own, next, tsn-1, func() { via.Close() })
			conn.send(cookie)
		case kind == initiateAck && conn != nil:
			conn.send(cookie)
		case kind == cookieAck:
			select {
			case answers <- nil:
			default:
			}
		case kind == abort && conn == nil:
			answers <- syscall.ECONNREFUSED
		case conn != nil:
			conn.handle(kind, value)
		}
	})
	opening := path{via: via, peer: peer, ours: port, theirs: way.theirs}
	for {
		if err := opening.send(chunk(initiate, 0, parameters(own, next))); err != nil {
			return nil, err
		}
		select {
		case err := <-answers:
			if err != nil {
				via.Close()
				return nil, err
			}
			return conn, nil
		case <-time.After(500 * time.Millisecond):
		}
	}
}
