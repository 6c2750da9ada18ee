package org.kbnn.demo

import android.content.ContentResolver
import android.graphics.Bitmap
import android.graphics.BitmapFactory
import android.media.ExifInterface
import android.net.Uri
import java.io.FileNotFoundException
import java.io.IOException
import java.io.InputStream
import kotlin.math.min

/** Upright pictures from the gallery. */
class Gallery(private val resolver: ContentResolver) {
    /** @throws IOException when the picture is gone, may not be read, is not a picture, or is too large. */
    fun load(uri: Uri): Picture = try {
        val bounds = BitmapFactory.Options().apply { inJustDecodeBounds = true }
        decode(uri, bounds)
        val sample = sampleSize(bounds.outWidth, bounds.outHeight)
        val bitmap = decode(uri, BitmapFactory.Options().apply { inSampleSize = sample })
            ?: throw IOException("not a picture that this device can read")
        bitmap.toPicture().rotated(rotation(uri))
    } catch (error: OutOfMemoryError) {
        throw IOException("it is too large for this device's memory", error)
    } catch (error: RuntimeException) {
        // A provider is another app's code, and may throw anything.
        throw IOException("${error.message}", error)
    }

    private fun decode(uri: Uri, options: BitmapFactory.Options): Bitmap? =
        opened(uri) { BitmapFactory.decodeStream(it, null, options) }

    private fun rotation(uri: Uri): Int {
        val orientation = opened(uri) {
            ExifInterface(it).getAttributeInt(ExifInterface.TAG_ORIENTATION, ExifInterface.ORIENTATION_NORMAL)
        }
        return when (orientation) {
            ExifInterface.ORIENTATION_ROTATE_90 -> 90
            ExifInterface.ORIENTATION_ROTATE_180 -> 180
            ExifInterface.ORIENTATION_ROTATE_270 -> 270
            else -> 0
        }
    }

    private fun <T> opened(uri: Uri, read: (InputStream) -> T): T = try {
        (resolver.openInputStream(uri) ?: throw FileNotFoundException("$uri")).use(read)
    } catch (error: SecurityException) {
        throw IOException("the picture may not be read any more, choose it again", error)
    }

}

private const val ENOUGH_PIXELS = 512
private const val MOST_PIXELS = 2_000_000L

/**
 * The power of two by which a picture is reduced while it is decoded, so that it need not fit into memory whole.
 *
 * The shorter side keeps 512 pixels, which suffice for any network's input, unless the picture would still have more
 * than 2 million pixels, as a long panorama does.
 */
fun sampleSize(width: Int, height: Int): Int {
    var size = 1
    while (min(width, height) / (2 * size) >= ENOUGH_PIXELS) size *= 2
    while (width.toLong() / size * (height / size) > MOST_PIXELS) size *= 2
    return size
}

/** The bitmap's pixels. */
fun Bitmap.toPicture(): Picture {
    val pixels = IntArray(width * height)
    getPixels(pixels, 0, width, 0, 0, width, height)
    return Picture(width, height, pixels)
}

/** The picture for an image view. */
fun Picture.toBitmap(): Bitmap = Bitmap.createBitmap(pixels, width, height, Bitmap.Config.ARGB_8888)
