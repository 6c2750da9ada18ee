package org.kbnn.demo

import java.nio.ByteBuffer
import kotlin.math.roundToInt

/** A picture, row by row, each pixel 0xAARRGGBB; the alpha byte is ignored. */
class Picture(val width: Int, val height: Int, val pixels: IntArray) {
    init {
        require(pixels.size == width * height) { "${pixels.size} pixels for a $width x $height picture" }
    }

    /** This picture turned clockwise by 0, 90, 180 or 270 degrees. */
    fun rotated(degrees: Int): Picture = when (degrees) {
        0 -> this
        90 -> turned(height, width) { x, y -> (height - 1 - x) * width + y }
        180 -> turned(width, height) { x, y -> (height - 1 - y) * width + (width - 1 - x) }
        270 -> turned(height, width) { x, y -> x * width + (width - 1 - y) }
        else -> throw IllegalArgumentException("a rotation of $degrees degrees")
    }

    private inline fun turned(newWidth: Int, newHeight: Int, source: (Int, Int) -> Int): Picture {
        val turned = IntArray(pixels.size)
        for (y in 0 until newHeight) for (x in 0 until newWidth) turned[y * newWidth + x] = pixels[source(x, y)]
        return Picture(newWidth, newHeight, turned)
    }

    /** One plane of a camera image: the sample of (x, y) lies at y * rowStride + x * pixelStride. */
    class Plane(val samples: ByteBuffer, val rowStride: Int, val pixelStride: Int) {
        fun at(x: Int, y: Int): Int = samples.get(y * rowStride + x * pixelStride).toInt() and 0xFF
    }

    companion object {
        /** A camera's YUV 4:2:0 image (BT.601, full range, as in JFIF); [u] and [v] have half the size of [y]. */
        fun fromYuv(width: Int, height: Int, y: Plane, u: Plane, v: Plane): Picture {
            val pixels = IntArray(width * height)
            for (row in 0 until height) {
                for (column in 0 until width) {
                    val luma = y.at(column, row)
                    val blue = u.at(column / 2, row / 2) - 128
                    val red = v.at(column / 2, row / 2) - 128
                    pixels[row * width + column] = rgb(
                        luma + 1.402f * red,
                        luma - 0.344136f * blue - 0.714136f * red,
                        luma + 1.772f * blue,
                    )
                }
            }
            return Picture(width, height, pixels)
        }

        private fun rgb(red: Float, green: Float, blue: Float): Int =
            (0xFF shl 24) or (level(red) shl 16) or (level(green) shl 8) or level(blue)

        private fun level(value: Float): Int = value.roundToInt().coerceIn(0, 255)
    }
}
