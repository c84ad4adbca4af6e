/* xclbin/layout.h - numbers of the container that the writer and the reader share. */
#ifndef FORAY_XCLBIN_LAYOUT_H
#define FORAY_XCLBIN_LAYOUT_H

enum {
  XB_HEADER_AT = 304,
  XB_HEADER = 152,
  XB_SECTION = 40,
  XB_SECTIONS_AT = XB_HEADER_AT + XB_HEADER,
  XB_MEM = 40,  /* entry of MEM_TOPOLOGY, after 8 bytes */
  XB_IP = 80,   /* of IP_LAYOUT, after 8 bytes */
  XB_CONN = 12, /* of CONNECTIVITY, after 4 bytes */
  XB_CLOCK =
      136, /* of CLOCK_FREQ_TOPOLOGY, after 2 bytes and 6 of padding inside the first entry: see writer */
  XB_BITSTREAM = 0,
  XB_METADATA = 2,
  XB_MEM_TOPOLOGY = 6,
  XB_CONNECTIVITY = 7,
  XB_IP_LAYOUT = 8,
  XB_CLOCKS = 11,
  XB_GROUP_TOPOLOGY = 26,
  XB_GROUP_CONNECTIVITY = 27
};

#endif
